//! The expressions of a program, and its bounds-checked memory accesses.

use cubecl::ir::{
    Arithmetic, AtomicOp, BinaryOperator, Branch, Comparison, ConstantValue, ElemType, If, IfElse,
    IndexAssignOperator, IndexOperator, Instruction, Operation, Operator, Scope, UnaryOperator,
    Variable,
};

use crate::lower::casts::{bits_as, cast_value};
use crate::lower::floats::{BlackBox, is_float, is_infinite, is_nan};
use crate::lower::functions::{self, binary};
use crate::lower::locals::Locals;
use crate::lower::planes;
use crate::lower::types::{IrType, S32, U32, U64, elem};
use crate::lower::values::{cast, constant, number, of_bits, put, select, unary, zero};
use ex_cubecl_core::program::tree::{Binary, Expr, Unary};

/// A buffer inside the kernel: the elements of the bound window, and which of them belong to the
/// buffer.
pub(super) struct ArrayArgument {
    pub list: Variable,
    pub offset: Option<Variable>,
    pub len: Variable,
}

pub(super) struct Lowering {
    pub buffers: Vec<ArrayArgument>,
    pub scalars: Vec<Variable>,
    pub locals: Locals,
    /// The global index that the thread works on: unsigned for accesses, and signed as in the kernel
    /// language.
    pub index: Variable,
    pub global_id: Variable,
    /// Where the element of each buffer at the thread's own index is in the bound window, if the program uses it.
    pub own: Vec<Option<Variable>>,
    /// In a kernel with groups: the group, and the thread's number in it.
    pub group_id: Variable,
    pub local_id: Variable,
    pub report: Option<usize>,
    pub status: Option<ArrayArgument>,
    pub black_box: BlackBox,
}

impl Lowering {
    pub(super) fn store(&self, scope: &mut Scope, slot: usize, index: Variable, value: Variable) {
        let place = at(scope, &self.buffers[slot], index);
        self.store_at(scope, slot, place, value);
    }

    pub(super) fn store_at(
        &self,
        scope: &mut Scope,
        slot: usize,
        place: Variable,
        value: Variable,
    ) {
        let list = self.buffers[slot].list;
        if list.ty.is_atomic() {
            let element = load_at(scope, list, place);
            let op = AtomicOp::Store(UnaryOperator { input: value });
            scope.register(Instruction::new(op, element));
        } else {
            store_at(scope, list, place, value);
        }
    }

    pub(super) fn load(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        let place = at(scope, &self.buffers[slot], index);
        self.load_at(scope, slot, place)
    }

    fn load_at(&self, scope: &mut Scope, slot: usize, place: Variable) -> Variable {
        let element = load_at(scope, self.buffers[slot].list, place);
        if element.ty.is_atomic() {
            let ty = element.ty.elem_type();
            put(scope, AtomicOp::Load(UnaryOperator { input: element }), ty)
        } else {
            element
        }
    }

    pub(super) fn own_place(&self, scope: &mut Scope, slot: usize) -> Variable {
        self.own[slot].unwrap_or_else(|| at(scope, &self.buffers[slot], self.index))
    }

    fn own_element(&self, scope: &mut Scope, slot: usize) -> Variable {
        if let Some(value) = self.locals.own_element(slot) {
            return value;
        }
        let place = self.own_place(scope, slot);
        let value = self.load_at(scope, slot, place);
        self.locals.set_own_element(slot, value);
        value
    }

    /// The element, or a reference to it if the buffer is atomic.
    pub(super) fn element(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        load_from(scope, &self.buffers[slot], index)
    }

    /// The index as an unsigned 32-bit word, and whether it is in bounds. A negative index becomes
    /// a large unsigned one, which is out of bounds.
    pub(super) fn inside(
        &self,
        scope: &mut Scope,
        slot: usize,
        index: Variable,
    ) -> (Variable, Variable) {
        let len = self.buffers[slot].len;
        let wide = index.ty.elem_type().size() == 8;
        let (lhs, rhs) = if wide {
            (cast(scope, index, U64), cast(scope, len, U64))
        } else {
            let signed = matches!(index.ty.elem_type(), ElemType::Int(_));
            let word = if signed {
                cast(scope, index, S32)
            } else {
                index
            };
            (cast(scope, word, U32), len)
        };
        let lower = Comparison::Lower(BinaryOperator { lhs, rhs });
        let inside = put(scope, lower, ElemType::Bool);
        (cast(scope, lhs, U32), inside)
    }

    pub(super) fn read(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        let (index, cond) = self.inside(scope, slot, index);
        let ty = self.buffers[slot].list.ty.elem_type();
        // The bound window has a first element even if the buffer is empty, so an index out of
        // bounds loads element 0. A branch for each access would make CubeCL's optimizer slow: its
        // time grows with the square of the number of branches.
        if self.report.is_none() {
            let index = select(scope, cond, index, zero(U32));
            let value = self.load(scope, slot, index);
            return select(scope, cond, value, zero(ty));
        }
        let out = *scope.create_local_restricted(IrType::scalar(ty));
        let zero = zero(ty);
        scope.register(Instruction::new(Operation::Copy(zero), out));
        let mut then = scope.child();
        let value = self.load(&mut then, slot, index);
        then.register(Instruction::new(Operation::Copy(value), out));
        self.guarded(scope, cond, then, slot, index);
        out
    }

    /// Runs `inside` if the index is in bounds. Otherwise the access is written to the report
    /// buffer, if the program has one.
    pub(super) fn guarded(
        &self,
        scope: &mut Scope,
        cond: Variable,
        inside: Scope,
        slot: usize,
        index: Variable,
    ) {
        let Some(report) = self.report else {
            scope.register(Branch::If(Box::new(If {
                cond,
                scope: inside,
            })));
            return;
        };
        let mut outside = scope.child();
        let index = cast(&mut outside, index, S32);
        let told = [
            number(1, S32),
            number(slot as i64, S32),
            index,
            self.global_id,
        ];
        for (at, value) in told.into_iter().enumerate() {
            self.store(&mut outside, report, number(at as i64, U32), value);
        }
        scope.register(Branch::IfElse(Box::new(IfElse {
            cond,
            scope_if: inside,
            scope_else: outside,
        })));
    }

    pub(super) fn expr(&self, scope: &mut Scope, expr: &Expr) -> Variable {
        match expr {
            Expr::Const(dtype, bits) => of_bits(*dtype, *bits),
            Expr::Bool(value) => constant(ConstantValue::Bool(*value), ElemType::Bool),
            Expr::Scalar(slot) => self.scalars[*slot],
            Expr::Local(local) => self.locals.value(scope, *local),
            Expr::GlobalId => self.global_id,
            Expr::GroupId => self.group_id,
            Expr::LocalId => self.local_id,
            Expr::Len(slot) => cast(scope, self.buffers[*slot].len, S32),
            Expr::ElementAtSelf(slot) => self.own_element(scope, *slot),
            Expr::Read(slot, index) => {
                let index = self.expr(scope, index);
                self.read(scope, *slot, index)
            }
            Expr::Cast(dtype, value) => {
                let value = self.operand(scope, value);
                let value = self.unknown(scope, value);
                cast_value(scope, self.black_box, value, *dtype)
            }
            Expr::Bitcast(dtype, value) => {
                let value = self.operand(scope, value);
                let value = self.unknown(scope, value);
                bits_as(scope, value, elem(*dtype))
            }
            Expr::Select(condition, then, other) => {
                let cond = self.expr(scope, condition);
                let then = self.choice(scope, then, BlackBox::wrap);
                let or_else = self.choice(scope, other, BlackBox::hide_apart);
                select(scope, cond, then, or_else)
            }
            Expr::PlaneLane => planes::lane(scope),
            Expr::PlaneSize => planes::size(scope),
            Expr::Plane(op, value) => {
                let value = self.operand(scope, value);
                let value = self.unknown(scope, value);
                planes::joined(scope, self.black_box, *op, value)
            }
            Expr::PlaneBroadcast(value, lane) => {
                let value = self.operand(scope, value);
                let value = self.unknown(scope, value);
                planes::broadcast(scope, value, *lane)
            }
            Expr::Unary(op, value) => {
                let value = self.operand(scope, value);
                let input = self.unknown(scope, value);
                match op {
                    Unary::IsNan => is_nan(scope, self.black_box, input),
                    Unary::IsInf => is_infinite(scope, self.black_box, input),
                    Unary::Neg | Unary::Abs => unary(scope, *op, input),
                    _ if is_float(input.ty.elem_type()) => {
                        functions::of_one(scope, self.black_box, *op, input)
                    }
                    _ => unary(scope, *op, input),
                }
            }
            Expr::Binary(op, left, right) => self.joined(scope, *op, left, right),
        }
    }

    pub(super) fn joined(
        &self,
        scope: &mut Scope,
        op: Binary,
        left: &Expr,
        right: &Expr,
    ) -> Variable {
        let (mut lhs, mut rhs) = (self.operand(scope, left), self.operand(scope, right));
        if rhs.as_const().is_some() {
            lhs = self.unknown(scope, lhs);
        } else if op == Binary::Sub && is_float(lhs.ty.elem_type()) && lhs.as_const().is_none() {
            // Drivers simplify `x - x` to 0, even if `x` is infinite.
            rhs = self.black_box.hide_apart(scope, rhs);
        }
        binary(scope, self.black_box, op, lhs, rhs)
    }

    /// The operand of an operation, or the value for a variable. The result of a float operation is
    /// hidden from compilers, which would otherwise simplify it together with the next operation.
    /// The constant zero is hidden too, because compilers simplify any product with it to zero. The bits of a number need not be
    /// hidden: the operand of `bitcast` is.
    pub(super) fn operand(&self, scope: &mut Scope, expr: &Expr) -> Variable {
        match expr {
            Expr::Bitcast(..) => self.expr(scope, expr),
            _ => self.hidden(scope, expr, BlackBox::wrap),
        }
    }

    fn hidden(&self, scope: &mut Scope, expr: &Expr, hide: Hide) -> Variable {
        let value = self.expr(scope, expr);
        let plain = match expr {
            Expr::ElementAtSelf(_) | Expr::Read(..) | Expr::Scalar(_) | Expr::Local(_) => true,
            Expr::Const(..) => !value.is_constant(0),
            _ => false,
        };
        if plain || !is_float(value.ty.elem_type()) {
            value
        } else {
            hide(self.black_box, scope, value)
        }
    }

    /// One of two values between which a condition chooses. Mesa's drivers rewrite a choice between the constants 1.0 and 0.0, or -1.0
    /// and -0.0, to a conversion of the condition, and take 0.0 for -0.0 and the reverse, also after they have calculated a
    /// constant. They do not tell integers from floats. Zeros of floats are hidden as operands are, and so are integers with
    /// the bits of 1.0 and -1.0. The values are hidden in two ways: of two sums with the same zero, drivers choose between the
    /// other operands.
    fn choice(&self, scope: &mut Scope, expr: &Expr, hide: Hide) -> Variable {
        let value = self.hidden(scope, expr, hide);
        match expr {
            Expr::Const(dtype, bits)
                if !is_float(value.ty.elem_type()) && has_bits_of_one(dtype.size(), *bits) =>
            {
                hide(self.black_box, scope, value)
            }
            _ => value,
        }
    }

    /// The value that a statement gives to a variable. A constant is hidden in another way than the results of operations, as those
    /// of `choice` are: of a variable that a branch sets, drivers make a choice.
    pub(super) fn set_value(&self, scope: &mut Scope, expr: &Expr) -> Variable {
        let value = self.operand(scope, expr);
        match value.as_const() {
            Some(_) => self.black_box.hide_apart(scope, value),
            None => value,
        }
    }

    /// Hides a constant from CubeCL's constant folding, which computes with 64 bits whatever the
    /// type.
    pub(super) fn unknown(&self, scope: &mut Scope, value: Variable) -> Variable {
        match value.as_const() {
            Some(_) => self.black_box.wrap(scope, value),
            None => value,
        }
    }
}

/// A way to hide a value from compilers.
type Hide = fn(BlackBox, &mut Scope, Variable) -> Variable;

/// Whether an integer has the bits of 1.0 or -1.0 in a float of its size in bytes.
fn has_bits_of_one(size: u64, bits: u64) -> bool {
    match size {
        2 => matches!(bits as u16, 0x3C00 | 0xBC00),
        4 => matches!(bits as u32, 0x3F80_0000 | 0xBF80_0000),
        8 => matches!(bits, 0x3FF0_0000_0000_0000 | 0xBFF0_0000_0000_0000),
        _ => false,
    }
}

pub(super) fn load_from(scope: &mut Scope, buffer: &ArrayArgument, index: Variable) -> Variable {
    let place = at(scope, buffer, index);
    load_at(scope, buffer.list, place)
}

fn load_at(scope: &mut Scope, list: Variable, index: Variable) -> Variable {
    let op = Operator::UncheckedIndex(IndexOperator {
        list,
        index,
        vector_size: 0,
        unroll_factor: 1,
    });
    let out = *scope.create_local(list.ty);
    scope.register(Instruction::new(op, out));
    out
}

pub(super) fn store_in(
    scope: &mut Scope,
    buffer: &ArrayArgument,
    index: Variable,
    value: Variable,
) {
    let place = at(scope, buffer, index);
    store_at(scope, buffer.list, place, value);
}

fn store_at(scope: &mut Scope, list: Variable, index: Variable, value: Variable) {
    let op = Operator::UncheckedIndexAssign(IndexAssignOperator {
        index,
        value,
        vector_size: 0,
        unroll_factor: 1,
    });
    scope.register(Instruction::new(op, list));
}

/// The place in the bound window of the element with this index in the buffer.
pub(super) fn at(scope: &mut Scope, buffer: &ArrayArgument, index: Variable) -> Variable {
    match buffer.offset {
        Some(rhs) => {
            let lhs = index;
            put(scope, Arithmetic::Add(BinaryOperator { lhs, rhs }), U32)
        }
        None => index,
    }
}
