//! A kernel as a small typed tree: what Elixir's typer makes of a kernel for one signature, and what
//! `runtime/emit.rs` makes CubeCL's IR of. A tree that passed `Program::new` is sound: each slot
//! exists, types agree, and it is neither too deep nor too large.

use crate::dtype::{DType, Kind};

/// Deeper trees than this come from no source that a person writes.
const MAX_DEPTH: usize = 200;
const MAX_NODES: usize = 20_000;

/// The type of a value inside of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    Bool,
    Of(DType),
}

/// Positions and lengths.
pub const POSITION: Type = Type::Of(DType::S32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Neg,
    Not,
    BitNot,
    Abs,
    Exp,
    Log,
    Log1p,
    Sin,
    Cos,
    Tan,
    Tanh,
    Sinh,
    Cosh,
    Asin,
    Acos,
    Atan,
    Sqrt,
    Rsqrt,
    Round,
    Floor,
    Ceil,
    Trunc,
    Erf,
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
    Pow,
    Atan2,
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

/// What happens to an element in one piece, whoever else is at it.
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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// An element by its bits.
    Const(DType, u64),
    Bool(bool),
    Scalar(usize),
    Local(usize),
    /// The number of this thread; not in a program of groups.
    Position,
    /// The number of this thread's group.
    Group,
    /// The number of this thread within its group.
    Member,
    /// Elements of a buffer.
    Len(usize),
    /// The element of a buffer at the thread's own position.
    Own(usize),
    /// Zero outside of the buffer.
    Read(usize, Box<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Cast(DType, Box<Expr>),
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stmt {
    Set(usize, Expr),
    /// Into an output at the thread's own position.
    Put(usize, Expr),
    /// Nothing outside of the buffer.
    Write(usize, Expr, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// A local runs from one value to another, both included; nothing where the second is less.
    For(usize, Expr, Expr, Vec<Stmt>),
    /// Changes an element of a buffer by an index and a value; a local gets what it was before.
    /// Outside of the buffer nothing, and zero.
    Atomic(Atomic, usize, Expr, Expr, Option<usize>),
    /// All threads of a group come here before one goes on.
    Barrier,
}

/// Threads that run together and share memory, which is zero at first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    pub threads: u32,
    /// Types and lengths.
    pub shared: Vec<(DType, u32)>,
}

/// Buffers are numbered inputs first, outputs behind them, and what a group shares behind those.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    pub inputs: Vec<DType>,
    pub outputs: Vec<DType>,
    pub scalars: Vec<DType>,
    pub locals: Vec<Type>,
    pub body: Vec<Stmt>,
    /// The output that is told of an index outside of its buffer, as `REPORT` elements of `s32`:
    /// 1, the number of the buffer, the index, the position.
    pub report: Option<usize>,
    /// The positions of a launch are those of its groups then.
    pub group: Option<Group>,
}

pub const REPORT: u64 = 4;

/// What is wrong with a tree. Elixir's typer makes none such: this is for whoever gets past it.
pub type Unsound = &'static str;

impl Program {
    pub fn check(&self) -> Result<(), Unsound> {
        if self.outputs.is_empty() {
            return Err("a kernel without an output");
        }
        let mut check = Check {
            program: self,
            nodes: 0,
        };
        if let Some(slot) = self.report {
            expect(POSITION, check.output(slot)?)?;
        }
        check.group()?;
        check.block(&self.body, 0)?;
        match Uniformity::of(self).holds(&self.body, true) {
            true => Ok(()),
            false => Err("a barrier where not all threads of a group come by"),
        }
    }

    /// The type of a buffer, or of what a group shares.
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

    /// Buffers, and what a group shares, that are changed in one piece somewhere.
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

    /// What is changed in one piece, by what, and of which type.
    pub fn changes(&self) -> Vec<(Atomic, DType)> {
        let mut all = Vec::new();
        statements(&self.body, &mut |statement| {
            if let Stmt::Atomic(op, slot, ..) = statement {
                all.extend(self.buffer(*slot).map(|dtype| (*op, dtype)));
            }
        });
        all
    }

    /// Whether each position writes its own element of each output, come what may.
    pub fn fills(&self) -> bool {
        let outputs = self.inputs.len()..self.buffers();
        outputs.into_iter().all(|output| {
            let put = |statement: &Stmt| matches!(statement, Stmt::Put(slot, _) if *slot == output);
            self.body.iter().any(put)
        })
    }

    /// Every type that the device has to calculate with.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut all = [&self.inputs[..], &self.outputs, &self.scalars].concat();
        all.extend(self.shared().iter().map(|shared| shared.0));
        all.extend(self.locals.iter().filter_map(|local| match local {
            Type::Of(dtype) => Some(*dtype),
            Type::Bool => None,
        }));
        self.each(&mut |expr| {
            if let Expr::Cast(dtype, _) | Expr::Const(dtype, _) = expr {
                all.push(*dtype);
            }
        });
        all.sort_by_key(|dtype| *dtype as usize);
        all.dedup();
        all
    }

    /// Buffers of which each thread uses its own element: they have one for each.
    pub fn own(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        self.each(&mut |expr| {
            if let Expr::Own(slot) = expr {
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

    fn each(&self, visit: &mut impl FnMut(&Expr)) {
        statements(&self.body, &mut |statement| match statement {
            Stmt::Set(_, value) | Stmt::Put(_, value) | Stmt::If(value, _, _) => {
                value.each(visit);
            }
            Stmt::Write(_, a, b) | Stmt::For(_, a, b, _) | Stmt::Atomic(_, _, a, b, _) => {
                a.each(visit);
                b.each(visit);
            }
            Stmt::Barrier => {}
        });
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
            _ => {}
        }
    }
}

impl Expr {
    fn each(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Read(_, a) | Expr::Unary(_, a) | Expr::Cast(_, a) => a.each(visit),
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

/// Which locals have the same value in all threads of a group: what they are set from and where.
struct Uniformity {
    varying: Vec<bool>,
}

impl Uniformity {
    fn of(program: &Program) -> Self {
        let mut known = Uniformity {
            varying: vec![false; program.locals.len()],
        };
        while known.spread(&program.body, true) {}
        known
    }

    fn is(&self, expr: &Expr) -> bool {
        let mut uniform = true;
        expr.each(&mut |part| {
            uniform &= match part {
                Expr::Position | Expr::Member | Expr::Own(_) | Expr::Read(..) => false,
                Expr::Local(local) => !self.varying[*local],
                _ => true,
            }
        });
        uniform
    }

    /// Whether one more local was found to vary.
    fn spread(&mut self, block: &[Stmt], together: bool) -> bool {
        let mut found = false;
        for statement in block {
            found |= match statement {
                Stmt::Set(local, value) => self.varies(*local, !(together && self.is(value))),
                Stmt::Atomic(_, _, _, _, Some(local)) => self.varies(*local, true),
                Stmt::If(condition, then, other) => {
                    let together = together && self.is(condition);
                    self.spread(then, together) | self.spread(other, together)
                }
                Stmt::For(local, from, to, body) => {
                    let together = together && self.is(from) && self.is(to);
                    self.varies(*local, !together) | self.spread(body, together)
                }
                _ => false,
            };
        }
        found
    }

    fn varies(&mut self, local: usize, varies: bool) -> bool {
        let new = varies && !self.varying[local];
        self.varying[local] |= varies;
        new
    }

    /// Whether all threads come by each barrier together.
    fn holds(&self, block: &[Stmt], together: bool) -> bool {
        block.iter().all(|statement| match statement {
            Stmt::Barrier => together,
            Stmt::If(condition, then, other) => {
                let together = together && self.is(condition);
                self.holds(then, together) && self.holds(other, together)
            }
            Stmt::For(_, from, to, body) => {
                self.holds(body, together && self.is(from) && self.is(to))
            }
            _ => true,
        })
    }
}

struct Check<'a> {
    program: &'a Program,
    nodes: usize,
}

impl Check<'_> {
    fn enter(&mut self, depth: usize) -> Result<(), Unsound> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err("a kernel that is too deep or too large");
        }
        Ok(())
    }

    fn group(&self) -> Result<(), Unsound> {
        let Some(group) = &self.program.group else {
            return Ok(());
        };
        let empty = group.shared.iter().any(|(_, length)| *length == 0);
        match group.threads == 0 || empty {
            true => Err("a group without threads, or shared memory without elements"),
            false => Ok(()),
        }
    }

    fn block(&mut self, block: &[Stmt], depth: usize) -> Result<(), Unsound> {
        for statement in block {
            self.enter(depth)?;
            self.statement(statement, depth + 1)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt, depth: usize) -> Result<(), Unsound> {
        match statement {
            Stmt::Set(local, value) => {
                let found = self.expr(value, depth)?;
                expect(self.local(*local)?, found)
            }
            Stmt::Put(slot, value) => {
                self.grouped(false)?;
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::Write(slot, index, value) => {
                self.index(index, depth)?;
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::Atomic(op, slot, index, value, before) => {
                self.index(index, depth)?;
                let found = self.expr(value, depth)?;
                let place = self.output(*slot)?;
                expect(place, found)?;
                if let Some(local) = before {
                    expect(self.local(*local)?, place)?;
                }
                atomic(*op, place)
            }
            Stmt::Barrier => self.grouped(true),
            Stmt::If(condition, then, other) => {
                expect(Type::Bool, self.expr(condition, depth)?)?;
                self.block(then, depth)?;
                self.block(other, depth)
            }
            Stmt::For(local, from, to, body) => {
                expect(POSITION, self.local(*local)?)?;
                expect(POSITION, self.expr(from, depth)?)?;
                expect(POSITION, self.expr(to, depth)?)?;
                self.block(body, depth)
            }
        }
    }

    fn grouped(&self, wanted: bool) -> Result<(), Unsound> {
        match (self.program.group.is_some(), wanted) {
            (true, false) => Err("a thread's own position in a kernel of groups"),
            (false, true) => Err("a word of groups in a kernel without"),
            _ => Ok(()),
        }
    }

    fn local(&self, local: usize) -> Result<Type, Unsound> {
        let found = self.program.locals.get(local).copied();
        found.ok_or("a local variable that is none")
    }

    fn buffer(&self, slot: usize) -> Result<Type, Unsound> {
        let found = self.program.buffer(slot).map(Type::Of);
        found.ok_or("a buffer that is none")
    }

    fn output(&self, slot: usize) -> Result<Type, Unsound> {
        match slot >= self.program.inputs.len() {
            true => self.buffer(slot),
            false => Err("a write into an input"),
        }
    }

    fn index(&mut self, index: &Expr, depth: usize) -> Result<(), Unsound> {
        match self.expr(index, depth)? {
            Type::Of(dtype) if dtype.kind() != Kind::Float => Ok(()),
            _ => Err("an index that is no integer"),
        }
    }

    fn expr(&mut self, expr: &Expr, depth: usize) -> Result<Type, Unsound> {
        self.enter(depth)?;
        let depth = depth + 1;
        Ok(match expr {
            Expr::Const(dtype, _) => Type::Of(*dtype),
            Expr::Bool(_) => Type::Bool,
            Expr::Scalar(slot) => {
                let found = self.program.scalars.get(*slot).copied();
                Type::Of(found.ok_or("a number that is none")?)
            }
            Expr::Local(local) => self.local(*local)?,
            Expr::Position => {
                self.grouped(false)?;
                POSITION
            }
            Expr::Group | Expr::Member => {
                self.grouped(true)?;
                POSITION
            }
            Expr::Len(slot) => {
                self.buffer(*slot)?;
                POSITION
            }
            Expr::Own(slot) => {
                self.grouped(false)?;
                self.buffer(*slot)?
            }
            Expr::Read(slot, index) => {
                self.index(index, depth)?;
                self.buffer(*slot)?
            }
            Expr::Cast(dtype, value) => {
                self.expr(value, depth)?;
                Type::Of(*dtype)
            }
            Expr::Select(condition, then, other) => {
                expect(Type::Bool, self.expr(condition, depth)?)?;
                let then = self.expr(then, depth)?;
                expect(then, self.expr(other, depth)?)?;
                then
            }
            Expr::Unary(op, value) => unary(*op, self.expr(value, depth)?)?,
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.expr(left, depth)?, self.expr(right, depth)?);
                expect(left, right)?;
                binary(*op, left)?
            }
        })
    }
}

fn expect(expected: Type, found: Type) -> Result<(), Unsound> {
    match expected == found {
        true => Ok(()),
        false => Err("types that do not agree"),
    }
}

fn kind(value: Type) -> Option<Kind> {
    match value {
        Type::Bool => None,
        Type::Of(dtype) => Some(dtype.kind()),
    }
}

fn unary(op: Unary, value: Type) -> Result<Type, Unsound> {
    use Unary::*;
    let (fits, result) = match (op, kind(value)) {
        (Not, kind) => (kind.is_none(), Type::Bool),
        (Neg | Abs, kind) => (matches!(kind, Some(Kind::Float | Kind::Signed)), value),
        (BitNot | CountOnes, kind) => (matches!(kind, Some(Kind::Signed | Kind::Unsigned)), value),
        (IsNan | IsInf, kind) => (kind == Some(Kind::Float), Type::Bool),
        (_, kind) => (kind == Some(Kind::Float), value),
    };
    match fits {
        true => Ok(result),
        false => Err("an operator on a type that it does not take"),
    }
}

fn atomic(op: Atomic, place: Type) -> Result<(), Unsound> {
    use Atomic::*;
    let integer = matches!(kind(place), Some(Kind::Signed | Kind::Unsigned));
    let fits = match op {
        And | Or | Xor => integer,
        Add | Min | Max | Exchange => kind(place).is_some(),
    };
    match fits {
        true => Ok(()),
        false => Err("an atomic operation on a type that it does not take"),
    }
}

fn binary(op: Binary, value: Type) -> Result<Type, Unsound> {
    use Binary::*;
    let number = kind(value).is_some();
    let integer = number && kind(value) != Some(Kind::Float);
    let (fits, result) = match op {
        And | Or => (!number, Type::Bool),
        BitAnd | BitOr | BitXor | Shl | Shr => (integer, value),
        Pow | Atan2 => (number && !integer, value),
        Add | Sub | Mul | Div | Rem | Min | Max => (number, value),
        Eq | Ne | Lt | Le | Gt | Ge => (number, Type::Bool),
    };
    match fits {
        true => Ok(result),
        false => Err("an operator on a type that it does not take"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;

    fn program(body: Vec<Stmt>) -> Program {
        Program {
            inputs: vec![F32, S32],
            outputs: vec![F32],
            scalars: vec![F32],
            locals: vec![POSITION],
            body,
            report: None,
            group: None,
        }
    }

    fn boxed(expr: Expr) -> Box<Expr> {
        Box::new(expr)
    }

    #[test]
    fn what_agrees_passes() {
        let value = Expr::Binary(Binary::Mul, boxed(Expr::Scalar(0)), boxed(Expr::Own(0)));
        let body = vec![
            Stmt::Set(0, Expr::Len(1)),
            Stmt::Put(2, value.clone()),
            Stmt::Write(2, Expr::Local(0), value),
        ];
        let program = program(body);
        assert_eq!(program.check(), Ok(()));
        assert_eq!(program.own(), [0, 2]);
        assert_eq!(program.dtypes(), [F32, S32]);
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let wrong = [
            Stmt::Put(0, Expr::Own(0)),
            Stmt::Put(3, Expr::Own(0)),
            Stmt::Put(2, Expr::Own(1)),
            Stmt::Put(2, Expr::Scalar(1)),
            Stmt::Put(2, Expr::Local(1)),
            Stmt::Write(2, Expr::Own(0), Expr::Own(0)),
            Stmt::If(Expr::Own(0), vec![], vec![]),
            Stmt::For(0, Expr::Own(0), Expr::Position, vec![]),
            Stmt::Put(2, Expr::Unary(Unary::BitNot, boxed(Expr::Own(0)))),
            Stmt::Put(
                2,
                Expr::Binary(Binary::Shl, boxed(Expr::Own(0)), boxed(Expr::Own(0))),
            ),
            Stmt::Put(
                2,
                Expr::Binary(Binary::Add, boxed(Expr::Own(0)), boxed(Expr::Own(1))),
            ),
        ];
        for statement in wrong {
            assert!(
                program(vec![statement.clone()]).check().is_err(),
                "{statement:?}"
            );
        }
    }

    #[test]
    fn a_barrier_is_where_all_threads_come_by() {
        let one = || Expr::Const(S32, 1);
        let first = || Expr::Binary(Binary::Lt, boxed(Expr::Member), boxed(one()));
        let same = || Expr::Binary(Binary::Lt, boxed(Expr::Group), boxed(one()));
        let round = |from, body| Stmt::For(0, from, one(), body);
        let grouped = |body| {
            let group = Some(Group {
                threads: 8,
                shared: vec![(S32, 4)],
            });
            Program {
                group,
                ..program(body)
            }
        };
        let fine = [
            vec![Stmt::Barrier],
            vec![Stmt::If(same(), vec![Stmt::Barrier], vec![])],
            vec![round(Expr::Len(1), vec![Stmt::Barrier])],
            vec![
                Stmt::Set(0, Expr::Group),
                round(Expr::Local(0), vec![Stmt::Barrier]),
            ],
        ];
        for body in fine {
            assert_eq!(grouped(body.clone()).check(), Ok(()), "{body:?}");
        }
        let wrong = [
            vec![Stmt::If(first(), vec![Stmt::Barrier], vec![])],
            vec![Stmt::If(first(), vec![], vec![Stmt::Barrier])],
            vec![round(Expr::Member, vec![Stmt::Barrier])],
            vec![round(
                Expr::Read(1, boxed(one())),
                vec![Stmt::If(same(), vec![Stmt::Barrier], vec![])],
            )],
            // What a local is set to further down counts in a loop.
            vec![round(
                one(),
                vec![
                    round(Expr::Local(0), vec![Stmt::Barrier]),
                    Stmt::Set(0, Expr::Member),
                ],
            )],
            vec![
                Stmt::If(first(), vec![Stmt::Set(0, one())], vec![]),
                round(Expr::Local(0), vec![Stmt::Barrier]),
            ],
            vec![Stmt::Put(2, Expr::Scalar(0))],
            vec![Stmt::Set(0, Expr::Position)],
        ];
        for body in wrong {
            assert!(grouped(body.clone()).check().is_err(), "{body:?}");
        }
        assert!(program(vec![Stmt::Barrier]).check().is_err());
        assert!(program(vec![Stmt::Set(0, Expr::Member)]).check().is_err());
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused() {
        let mut deep = Expr::Own(0);
        for _ in 0..300 {
            deep = Expr::Unary(Unary::Neg, boxed(deep));
        }
        assert!(program(vec![Stmt::Put(2, deep)]).check().is_err());
        let many = vec![Stmt::Put(2, Expr::Own(0)); 20_000];
        assert!(program(many).check().is_err());
    }
}
