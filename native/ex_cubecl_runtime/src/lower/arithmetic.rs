//! The instructions of two operands that need no function of `functions.rs`.

use cubecl::ir::{Arithmetic, BinaryOperator, Scope, Variable};
use ex_cubecl_core::program::tree::Binary;

use crate::lower::floats::{Veil, compared, extreme, is_float};
use crate::lower::integers;
use crate::lower::values::put;

pub(super) fn binary(
    scope: &mut Scope,
    veil: Veil,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    match is_float(lhs.ty.elem_type()) {
        true => of_floats(scope, veil, op, lhs, rhs),
        false => integers::binary(scope, op, lhs, rhs),
    }
}

/// `functions::binary` has lowered `Rem`, `Pow` and `Atan2` before.
fn of_floats(scope: &mut Scope, veil: Veil, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        Binary::Min | Binary::Max => extreme(scope, veil, op, lhs, rhs),
        _ => compared(scope, veil, op, lhs, rhs),
    }
}
