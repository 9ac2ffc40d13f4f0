//! Operations on integers and booleans, such that every device gives the same results.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Bitwise, Comparison, ElemType, Operator, Scope, Variable,
};
use ex_cubecl_core::program::tree::Binary;

use crate::lower::values::{number, put, select, zero};

pub(super) fn binary(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div | Binary::Rem => divide(scope, op, lhs, rhs),
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
fn divide(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
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
fn shift(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
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
