//! Functions of floats that drivers implement differently from IEEE 754: they lose NaN. Narrow floats are
//! calculated with 32 bits and rounded once. Exponentials, logarithms, powers and trigonometric functions are expressions
//! of Elixir's `Kernel.FloatFunctions`, not operations of a program.

use cubecl::ir::{ElemType, FloatKind, Scope, Variable};

use crate::lower::arithmetic::binary as arithmetic;
use crate::lower::floats::{BlackBox, is_float, is_narrow, nan_where};
use crate::lower::remainder::remainder;
use crate::lower::values::{cast, unary};
use ex_cubecl_core::program::tree::{Binary, Unary};

const F32: ElemType = ElemType::Float(FloatKind::F32);

/// Any operation of two operands.
pub(super) fn binary(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    match op {
        Binary::Rem if is_float(lhs.ty.elem_type()) => remainder(scope, black_box, lhs, rhs),
        _ => arithmetic(scope, black_box, op, lhs, rhs),
    }
}

pub(super) fn of_one(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Unary,
    input: Variable,
) -> Variable {
    let ty = input.ty.elem_type();
    if is_narrow(ty) {
        let wide = cast(scope, input, F32);
        let wide = of_one(scope, black_box, op, wide);
        return cast(scope, wide, ty);
    }
    let result = unary(scope, op, input);
    match op {
        Unary::Sqrt => nan_where(scope, black_box, input, result),
        _ => result,
    }
}
