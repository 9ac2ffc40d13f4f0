//! A kernel as a small typed tree. Elixir's type checker makes it from a kernel for one signature, and
//! the runtime lowers it to CubeCL's IR. A tree that passed `Program::check` is valid: each slot
//! exists, types agree, and it is neither too deep nor too large.

use crate::dtype::DType;

/// The type of a value inside a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    Bool,
    Of(DType),
}

/// The type of indices of threads and elements, and of lengths.
pub const INDEX: Type = Type::Of(DType::S32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Neg,
    Not,
    BitNot,
    Abs,
    Sqrt,
    Round,
    Floor,
    Ceil,
    Trunc,
    IsNan,
    IsInf,
    CountOnes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// The elements of a vector.
pub const LANES: usize = 4;

/// Atomic operations on an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Atomic {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
}

/// Operations on the values of all threads of a plane, the threads that execute together: a subgroup of Vulkan, a warp of CUDA. Each
/// thread of the plane gets the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    Sum,
    Product,
    Min,
    Max,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant, by the bits of its element type.
    Const(DType, u64),
    Bool(bool),
    Scalar(usize),
    Local(usize),
    /// The global index of this thread; not allowed in a program with groups.
    GlobalId,
    /// The index of this thread's group.
    GroupId,
    /// The index of this thread within its group.
    LocalId,
    /// The number of elements of a buffer.
    Len(usize),
    /// The element of a buffer at this thread's global index.
    ElementAtSelf(usize),
    /// An element by its index; zero if the index is out of bounds.
    Read(usize, Box<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Cast(DType, Box<Expr>),
    /// The bits of a number as a number of another type of the same size.
    Bitcast(DType, Box<Expr>),
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// The index of this thread within its plane.
    PlaneLane,
    /// The number of threads of a plane.
    PlaneSize,
    Plane(Plane, Box<Expr>),
    /// The value of the thread with this index within the plane; zero if there is none.
    PlaneBroadcast(Box<Expr>, u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stmt {
    Set(usize, Expr),
    /// Stores into an output at this thread's global index.
    Put(usize, Expr),
    /// Stores a value at an index; does nothing if the index is out of bounds.
    Write(usize, Expr, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// A loop. The local counts from the first value to the second, inclusive; there are no iterations
    /// if the second is less.
    For(usize, Expr, Expr, Vec<Stmt>),
    While(Box<While>),
    /// An atomic operation on the element at an index, with a value; the local gets the old element.
    /// If the index is out of bounds, nothing changes and the local gets zero.
    Atomic(Atomic, usize, Expr, Expr, Option<usize>),
    /// Loads the vector of a buffer with this index, the elements from four times the index on, into locals. Elements behind the end
    /// of the buffer have any value.
    LoadVector(usize, Expr, [usize; LANES]),
    /// Stores a vector into an output. Elements behind its end are not stored.
    StoreVector(usize, Expr, Box<[Expr; LANES]>),
    /// A workgroup barrier: all threads of a group reach it before any of them continues.
    Barrier,
}

/// A loop with a condition. Each iteration executes `head`, ends the loop if the condition is false, and executes `body`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct While {
    /// The largest number of iterations, evaluated once.
    pub limit: Expr,
    /// Computes what the condition uses.
    pub head: Vec<Stmt>,
    pub condition: Expr,
    pub body: Vec<Stmt>,
}

/// A workgroup: threads that run together and share memory, which is initially zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    pub threads: u32,
    /// Types and lengths of the shared arrays.
    pub shared: Vec<(DType, u32)>,
}

impl Group {
    /// Bytes of the shared arrays, each of which starts at a multiple of 16.
    pub fn shared_bytes(&self) -> u64 {
        let sizes = self.shared.iter();
        sizes
            .map(|(dtype, len)| (dtype.size() * u64::from(*len)).next_multiple_of(16))
            .sum()
    }
}

/// Slots are numbered: inputs first, then outputs, then the shared arrays of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    pub inputs: Vec<DType>,
    pub outputs: Vec<DType>,
    pub scalars: Vec<DType>,
    pub locals: Vec<Type>,
    pub body: Vec<Stmt>,
    /// The output that receives the report of an out-of-bounds index, as `REPORT` elements of `s32`:
    /// 1, the number of the buffer, the index, the invocation.
    pub report: Option<usize>,
    /// With a group, the invocations of a launch count groups, not threads.
    pub group: Option<Group>,
}

pub const REPORT: u64 = 4;

impl Program {
    /// The type of a buffer or of a shared array.
    pub fn buffer(&self, slot: usize) -> Option<DType> {
        let outputs = slot.checked_sub(self.inputs.len());
        let output = || outputs.and_then(|at| self.outputs.get(at)).copied();
        let shared = || self.shared().get(slot.checked_sub(self.buffers())?);
        let input = self.inputs.get(slot).copied();
        input.or_else(output).or_else(|| Some(shared()?.0))
    }

    /// How many buffers a launch binds.
    pub fn buffers(&self) -> usize {
        self.inputs.len() + self.outputs.len()
    }

    pub fn shared(&self) -> &[(DType, u32)] {
        let group = self.group.as_ref();
        group.map(|group| &group.shared[..]).unwrap_or_default()
    }

    /// The buffers and shared arrays that an atomic operation changes.
    pub fn atomics(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        statements(&self.body, &mut |statement| {
            if let Stmt::Atomic(_, slot, ..) = statement {
                slots.push(*slot);
            }
        });
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Each atomic operation of the program, with the type of its element.
    pub fn atomic_operations(&self) -> Vec<(Atomic, DType)> {
        let mut all = Vec::new();
        statements(&self.body, &mut |statement| {
            if let Stmt::Atomic(op, slot, ..) = statement {
                all.extend(self.buffer(*slot).map(|dtype| (*op, dtype)));
            }
        });
        all
    }

    /// Whether each invocation writes its own element of each output unconditionally.
    pub fn fills(&self) -> bool {
        let outputs = self.inputs.len()..self.buffers();
        outputs.into_iter().all(|output| {
            let put = |statement: &Stmt| matches!(statement, Stmt::Put(slot, _) if *slot == output);
            self.body.iter().any(put)
        })
    }

    /// Whether the program has branches or loops.
    pub fn branches(&self) -> bool {
        let mut found = false;
        self.statements(&mut |statement| {
            found |= matches!(statement, Stmt::If(..) | Stmt::For(..) | Stmt::While(_));
        });
        found
    }

    /// Every type that the device must support.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut all = [&self.inputs[..], &self.outputs, &self.scalars].concat();
        all.extend(self.shared().iter().map(|shared| shared.0));
        all.extend(self.locals.iter().filter_map(|local| match local {
            Type::Of(dtype) => Some(*dtype),
            Type::Bool => None,
        }));
        self.each(&mut |expr| {
            if let Expr::Cast(dtype, _) | Expr::Bitcast(dtype, _) | Expr::Const(dtype, _) = expr {
                all.push(*dtype);
            }
        });
        all.sort_by_key(|dtype| *dtype as usize);
        all.dedup();
        all
    }

    /// Buffers of which each thread uses the element at its own index: they need one for each thread.
    pub fn element_at_self(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        self.each(&mut |expr| {
            if let Expr::ElementAtSelf(slot) = expr {
                slots.push(*slot);
            }
        });
        statements(&self.body, &mut |statement| {
            if let Stmt::Put(slot, _) = statement {
                slots.push(*slot);
            }
        });
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The number of statements and expressions.
    pub fn nodes(&self) -> u64 {
        let mut nodes = 0;
        statements(&self.body, &mut |_| nodes += 1);
        self.each(&mut |_| nodes += 1);
        nodes
    }

    pub(crate) fn statements(&self, visit: &mut impl FnMut(&Stmt)) {
        statements(&self.body, visit);
    }

    pub(crate) fn each(&self, visit: &mut impl FnMut(&Expr)) {
        statements(&self.body, &mut |statement| statement.each(visit));
    }

    /// The name of the first operation on a plane.
    pub fn plane_operation(&self) -> Option<&'static str> {
        let mut found = None;
        self.each(&mut |expr| found = found.or(expr.plane_operation()));
        found
    }
}

impl Stmt {
    /// Visits the expressions of the statement, without those of the statements in it.
    pub(crate) fn each(&self, visit: &mut impl FnMut(&Expr)) {
        match self {
            Stmt::Set(_, value) | Stmt::Put(_, value) | Stmt::If(value, _, _) => {
                value.each(visit);
            }
            Stmt::Write(_, a, b) | Stmt::For(_, a, b, _) | Stmt::Atomic(_, _, a, b, _) => {
                a.each(visit);
                b.each(visit);
            }
            Stmt::While(round) => {
                round.limit.each(visit);
                round.condition.each(visit);
            }
            Stmt::LoadVector(_, index, _) => index.each(visit),
            Stmt::StoreVector(_, index, values) => {
                index.each(visit);
                values.iter().for_each(|value| value.each(visit));
            }
            Stmt::Barrier => {}
        }
    }
}

fn statements(block: &[Stmt], visit: &mut impl FnMut(&Stmt)) {
    for statement in block {
        visit(statement);
        match statement {
            Stmt::If(_, then, other) => {
                statements(then, visit);
                statements(other, visit);
            }
            Stmt::For(_, _, _, body) => statements(body, visit),
            Stmt::While(round) => {
                statements(&round.head, visit);
                statements(&round.body, visit);
            }
            _ => {}
        }
    }
}

impl Expr {
    /// The name in the kernel language, if this is an operation on a plane.
    pub(crate) fn plane_operation(&self) -> Option<&'static str> {
        match self {
            Expr::PlaneLane => Some("plane_lane"),
            Expr::PlaneSize => Some("plane_size"),
            Expr::PlaneBroadcast(..) => Some("plane_broadcast"),
            Expr::Plane(Plane::Sum, _) => Some("plane_sum"),
            Expr::Plane(Plane::Product, _) => Some("plane_product"),
            Expr::Plane(Plane::Min, _) => Some("plane_min"),
            Expr::Plane(Plane::Max, _) => Some("plane_max"),
            _ => None,
        }
    }

    pub(crate) fn each(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Read(_, a)
            | Expr::Unary(_, a)
            | Expr::Cast(_, a)
            | Expr::Bitcast(_, a)
            | Expr::Plane(_, a)
            | Expr::PlaneBroadcast(a, _) => a.each(visit),
            Expr::Binary(_, a, b) => {
                a.each(visit);
                b.each(visit);
            }
            Expr::Select(a, b, c) => {
                a.each(visit);
                b.each(visit);
                c.each(visit);
            }
            _ => {}
        }
    }
}
