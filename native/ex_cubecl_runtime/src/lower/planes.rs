//! Operations on planes: the threads that execute together, a subgroup of Vulkan or a warp of CUDA.

use cubecl::ir::{
    BinaryOperator, Builtin, Comparison, ElemType, Plane as PlaneOp, Scope, UnaryOperator, Variable,
};
use ex_cubecl_core::program::tree::Plane;

use crate::lower::floats::{BlackBox, is_float, is_nan, quiet_nan};
use crate::lower::types::{S32, U32};
use crate::lower::values::{builtin, cast, number, put, select, zero};

pub(super) fn lane(scope: &mut Scope) -> Variable {
    let lane = builtin(scope, Builtin::UnitPosPlane);
    cast(scope, lane, S32)
}

pub(super) fn size(scope: &mut Scope) -> Variable {
    let size = builtin(scope, Builtin::PlaneDim);
    cast(scope, size, S32)
}

pub(super) fn joined(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Plane,
    input: Variable,
) -> Variable {
    let ty = input.ty.elem_type();
    let o = UnaryOperator { input };
    let result = match op {
        Plane::Sum => put(scope, PlaneOp::Sum(o), ty),
        Plane::Product => put(scope, PlaneOp::Prod(o), ty),
        Plane::Min => put(scope, PlaneOp::Min(o), ty),
        Plane::Max => put(scope, PlaneOp::Max(o), ty),
    };
    if !is_float(ty) || matches!(op, Plane::Sum | Plane::Product) {
        return result;
    }
    // NaN wins, as in `min` and `max` of two numbers; drivers lose it.
    let nan = is_nan(scope, black_box, input);
    let input = select(scope, nan, number(1, U32), zero(U32));
    let any = put(scope, PlaneOp::Max(UnaryOperator { input }), U32);
    let (lhs, rhs) = (any, zero(U32));
    let any = Comparison::NotEqual(BinaryOperator { lhs, rhs });
    let any = put(scope, any, ElemType::Bool);
    let nan = quiet_nan(scope, black_box, ty);
    select(scope, any, nan, result)
}

/// A plane may have fewer threads than `lane`, and no device defines what it broadcasts then.
pub(super) fn broadcast(scope: &mut Scope, value: Variable, lane: u32) -> Variable {
    let ty = value.ty.elem_type();
    let lane = number(i64::from(lane), U32);
    let (lhs, rhs) = (value, lane);
    let found = put(scope, PlaneOp::Broadcast(BinaryOperator { lhs, rhs }), ty);
    let (lhs, rhs) = (lane, builtin(scope, Builtin::PlaneDim));
    let exists = Comparison::Lower(BinaryOperator { lhs, rhs });
    let exists = put(scope, exists, ElemType::Bool);
    select(scope, exists, found, zero(ty))
}
