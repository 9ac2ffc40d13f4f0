//! The instructions of two operands that need no function of `functions.rs`.

use cubecl::ir::{Arithmetic, BinaryOperator, Scope, Variable};
use ex_cubecl_core::program::tree::Binary;

use crate::lower::floats::{BlackBox, compared, extreme, is_float};
use crate::lower::integers;
use crate::lower::values::put;

pub(super) fn binary(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    if is_float(lhs.ty.elem_type()) {
        of_floats(scope, black_box, op, lhs, rhs)
    } else {
        integers::binary(scope, op, lhs, rhs)
    }
}

/// `functions::binary` has lowered `Rem` before.
fn of_floats(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        Binary::Min | Binary::Max => extreme(scope, black_box, op, lhs, rhs),
        _ => compared(scope, black_box, op, lhs, rhs),
    }
}
