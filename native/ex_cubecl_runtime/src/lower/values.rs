//! Constants, casts and the instructions of one operand.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Bitwise, Branch, Builtin, Comparison, ConstantValue, ElemType, If,
    Instruction, NonSemantic, Operation, Operator, Scope, Select, StorageType, UnaryOperator,
    Variable,
};
use cubecl::prelude::CubePrimitive;
use ex_cubecl_core::dtype::{DType, Kind};
use ex_cubecl_core::numeric;
use ex_cubecl_core::program::tree::Unary;

use crate::lower::types::{IrType, U32, elem};

/// CubeCL's optimizer compares each instruction of a block with all that follow it in the block.
const MAX_BLOCK: usize = 512;

pub(super) fn put(scope: &mut Scope, op: impl Into<Operation>, ty: ElemType) -> Variable {
    let out = *scope.create_local(IrType::scalar(ty));
    scope.register(Instruction::new(op, out));
    if scope.instructions.len().is_multiple_of(MAX_BLOCK) {
        end_block(scope);
    }
    out
}

/// A branch that does nothing, so that what follows is another block. CubeCL removes empty branches; a driver removes this one.
fn end_block(scope: &mut Scope) {
    let ty = StorageType::Scalar(U32);
    let first = Comparison::Equal(BinaryOperator {
        lhs: Variable::builtin(Builtin::UnitPos, ty),
        rhs: zero(U32),
    });
    let cond = *scope.create_local(IrType::scalar(ElemType::Bool));
    scope.register(Instruction::new(first, cond));
    let mut then = scope.child();
    let content = "nothing".into();
    then.register(Instruction::no_out(NonSemantic::Comment { content }));
    scope.register(Branch::If(Box::new(If { cond, scope: then })));
}

pub(super) fn cast(scope: &mut Scope, input: Variable, ty: ElemType) -> Variable {
    if input.ty == IrType::scalar(ty) {
        input
    } else {
        put(scope, Operator::Cast(UnaryOperator { input }), ty)
    }
}

pub(super) fn constant(value: ConstantValue, ty: ElemType) -> Variable {
    Variable::constant(value, IrType::scalar(ty))
}

pub(super) fn of_bits(dtype: DType, bits: u64) -> Variable {
    let value = match dtype.kind() {
        Kind::Unsigned => ConstantValue::UInt(bits),
        Kind::Signed => {
            let unused = 64 - 8 * dtype.size() as u32;
            ConstantValue::Int(((bits << unused) as i64) >> unused)
        }
        Kind::Float => {
            let wide = numeric::convert_bits(dtype.into(), DType::F64.into(), bits);
            ConstantValue::Float(f64::from_bits(wide))
        }
    };
    constant(value, elem(dtype))
}

pub(super) fn multiply(scope: &mut Scope, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    put(scope, Arithmetic::Mul(BinaryOperator { lhs, rhs }), ty)
}

pub(super) fn zero(ty: ElemType) -> Variable {
    number(0, ty)
}

pub(super) fn number(value: i64, ty: ElemType) -> Variable {
    let value = match ty {
        ElemType::Float(_) => ConstantValue::Float(value as f64),
        ElemType::UInt(_) => ConstantValue::UInt(value as u64),
        _ => ConstantValue::Int(value),
    };
    constant(value, ty)
}

pub(super) fn select(
    scope: &mut Scope,
    cond: Variable,
    then: Variable,
    or_else: Variable,
) -> Variable {
    let ty = then.ty.elem_type();
    let op = Select {
        cond,
        then,
        or_else,
    };
    put(scope, Operator::Select(op), ty)
}

pub(super) fn unary(scope: &mut Scope, op: Unary, input: Variable) -> Variable {
    let ty = input.ty.elem_type();
    let o = UnaryOperator { input };
    match op {
        Unary::Neg => put(scope, Arithmetic::Neg(o), ty),
        Unary::Not => put(scope, Operator::Not(o), ty),
        Unary::BitNot => put(scope, Bitwise::BitwiseNot(o), ty),
        Unary::Abs => put(scope, Arithmetic::Abs(o), ty),
        Unary::Sqrt => put(scope, Arithmetic::Sqrt(o), ty),
        Unary::Round => put(scope, Arithmetic::Round(o), ty),
        Unary::Floor => put(scope, Arithmetic::Floor(o), ty),
        Unary::Ceil => put(scope, Arithmetic::Ceil(o), ty),
        Unary::Trunc => put(scope, Arithmetic::Trunc(o), ty),
        Unary::IsNan => put(scope, Comparison::IsNan(o), ElemType::Bool),
        Unary::IsInf => put(scope, Comparison::IsInf(o), ElemType::Bool),
        Unary::CountOnes => {
            let ones = put(scope, Bitwise::CountOnes(o), U32);
            cast(scope, ones, ty)
        }
    }
}

/// A builtin value of the thread, as a 32-bit word.
pub(super) fn builtin(scope: &mut Scope, builtin: Builtin) -> Variable {
    let ty = match builtin {
        Builtin::UnitPos | Builtin::UnitPosPlane | Builtin::PlaneDim => StorageType::Scalar(U32),
        _ => usize::as_type(scope).storage_type(),
    };
    cast(scope, Variable::builtin(builtin, ty), U32)
}
