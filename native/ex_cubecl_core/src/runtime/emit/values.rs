//! Values and the operations on them, such that every device gives the same results.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Bitwise, Comparison, ConstantValue, ElemType, Instruction,
    Operation, Operator, Scope, Select, UnaryOperator, Variable,
};

use super::floats::{Veil, compared, extreme, is_float};
use super::{IrType, U32, elem, functions};
use crate::dtype::{DType, Kind};
use crate::kernel::tree::{Binary, Type, Unary};
use crate::numeric;

pub(super) fn ir_type(ty: Type) -> IrType {
    match ty {
        Type::Bool => IrType::scalar(ElemType::Bool),
        Type::Of(dtype) => IrType::scalar(elem(dtype)),
    }
}

pub(super) fn put(scope: &mut Scope, op: impl Into<Operation>, ty: ElemType) -> Variable {
    let out = *scope.create_local(IrType::scalar(ty));
    scope.register(Instruction::new(op, out));
    out
}

pub(super) fn cast(scope: &mut Scope, input: Variable, ty: ElemType) -> Variable {
    match input.ty == IrType::scalar(ty) {
        true => input,
        false => put(scope, Operator::Cast(UnaryOperator { input }), ty),
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
        Unary::Exp => put(scope, Arithmetic::Exp(o), ty),
        Unary::Log => put(scope, Arithmetic::Log(o), ty),
        Unary::Log1p => put(scope, Arithmetic::Log1p(o), ty),
        Unary::Sin => put(scope, Arithmetic::Sin(o), ty),
        Unary::Cos => put(scope, Arithmetic::Cos(o), ty),
        Unary::Tan => put(scope, Arithmetic::Tan(o), ty),
        Unary::Tanh => put(scope, Arithmetic::Tanh(o), ty),
        Unary::Sinh => put(scope, Arithmetic::Sinh(o), ty),
        Unary::Cosh => put(scope, Arithmetic::Cosh(o), ty),
        Unary::Asin => put(scope, Arithmetic::ArcSin(o), ty),
        Unary::Acos => put(scope, Arithmetic::ArcCos(o), ty),
        Unary::Atan => put(scope, Arithmetic::ArcTan(o), ty),
        Unary::Sqrt => put(scope, Arithmetic::Sqrt(o), ty),
        Unary::Rsqrt => put(scope, Arithmetic::InverseSqrt(o), ty),
        Unary::Round => put(scope, Arithmetic::Round(o), ty),
        Unary::Floor => put(scope, Arithmetic::Floor(o), ty),
        Unary::Ceil => put(scope, Arithmetic::Ceil(o), ty),
        Unary::Trunc => put(scope, Arithmetic::Trunc(o), ty),
        Unary::Erf => put(scope, Arithmetic::Erf(o), ty),
        Unary::IsNan => put(scope, Comparison::IsNan(o), ElemType::Bool),
        Unary::IsInf => put(scope, Comparison::IsInf(o), ElemType::Bool),
        Unary::CountOnes => {
            let ones = put(scope, Bitwise::CountOnes(o), U32);
            cast(scope, ones, ty)
        }
    }
}

pub(super) fn binary(
    scope: &mut Scope,
    veil: Veil,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    match is_float(lhs.ty.elem_type()) {
        true => of_floats(scope, veil, op, lhs, rhs),
        false => of_integers(scope, op, lhs, rhs),
    }
}

fn of_floats(scope: &mut Scope, veil: Veil, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        Binary::Rem => functions::remainder(scope, veil, lhs, rhs),
        Binary::Pow => functions::pow(scope, veil, lhs, rhs),
        Binary::Atan2 => functions::atan2(scope, veil, lhs, rhs),
        Binary::Min | Binary::Max => extreme(scope, veil, op, lhs, rhs),
        _ => compared(scope, veil, op, lhs, rhs),
    }
}

fn of_integers(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div | Binary::Rem => divide(scope, op, lhs, rhs),
        // Only for floats.
        Binary::Pow | Binary::Atan2 => lhs,
        Binary::Min => put(scope, Arithmetic::Min(o), ty),
        Binary::Max => put(scope, Arithmetic::Max(o), ty),
        Binary::And => put(scope, Operator::And(o), ty),
        Binary::Or => put(scope, Operator::Or(o), ty),
        Binary::BitAnd => put(scope, Bitwise::BitwiseAnd(o), ty),
        Binary::BitOr => put(scope, Bitwise::BitwiseOr(o), ty),
        Binary::BitXor => put(scope, Bitwise::BitwiseXor(o), ty),
        Binary::Shl | Binary::Shr => shift(scope, op, lhs, rhs),
        Binary::Eq => put(scope, Comparison::Equal(o), ElemType::Bool),
        Binary::Ne => put(scope, Comparison::NotEqual(o), ElemType::Bool),
        Binary::Lt => put(scope, Comparison::Lower(o), ElemType::Bool),
        Binary::Le => put(scope, Comparison::LowerEqual(o), ElemType::Bool),
        Binary::Gt => put(scope, Comparison::Greater(o), ElemType::Bool),
        Binary::Ge => put(scope, Comparison::GreaterEqual(o), ElemType::Bool),
    }
}

/// Quotient and remainder by zero are 0, and the least number divided by -1 wraps around. Left to
/// the device, either result may be anything.
pub(super) fn divide(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let equal = |scope: &mut Scope, value: i64| {
        let rhs_is = BinaryOperator {
            lhs: rhs,
            rhs: number(value, ty),
        };
        put(scope, Comparison::Equal(rhs_is), ElemType::Bool)
    };
    let by_zero = equal(scope, 0);
    let mut odd = by_zero;
    let signed = matches!(ty, ElemType::Int(_));
    let mut other = zero(ty);
    if signed {
        let by_minus_one = equal(scope, -1);
        odd = put(
            scope,
            Operator::Or(BinaryOperator {
                lhs: by_zero,
                rhs: by_minus_one,
            }),
            ElemType::Bool,
        );
        if op == Binary::Div {
            let negative = Arithmetic::Sub(BinaryOperator {
                lhs: zero(ty),
                rhs: lhs,
            });
            let negative = put(scope, negative, ty);
            other = select(scope, by_zero, zero(ty), negative);
        }
    }
    let safe = select(scope, odd, number(1, ty), rhs);
    let o = BinaryOperator { lhs, rhs: safe };
    let result = match op {
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        _ => put(scope, Arithmetic::Modulo(o), ty),
    };
    select(scope, odd, other, result)
}

/// The distance is masked to the number of bits of the type, as on every CPU.
pub(super) fn shift(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let mask = number(8 * ty.size() as i64 - 1, ty);
    let distance = Bitwise::BitwiseAnd(BinaryOperator {
        lhs: rhs,
        rhs: mask,
    });
    let rhs = put(scope, distance, ty);
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Shl => put(scope, Bitwise::ShiftLeft(o), ty),
        _ => put(scope, Bitwise::ShiftRight(o), ty),
    }
}
