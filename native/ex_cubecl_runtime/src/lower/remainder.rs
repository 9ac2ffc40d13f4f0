//! The exact remainder of floats, by long division of their significands.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Branch, ConstantValue, ElemType, FloatKind, If, Instruction,
    Operation, Scope, Variable,
};

use crate::lower::arithmetic::binary as arithmetic;
use crate::lower::floats::{
    BlackBox, compared, either, float, is_infinite, is_narrow, nan_where, quiet_nan, reinterpret,
};
use crate::lower::types::{IrType, U32, U64};
use crate::lower::values::{cast, constant, put, select};
use ex_cubecl_core::program::tree::Binary;

const F32: ElemType = ElemType::Float(FloatKind::F32);

/// The exact remainder with the sign of the first operand. Devices calculate
/// `x - y * trunc(x / y)`, whose error is that of the quotient.
pub(super) fn remainder(
    scope: &mut Scope,
    black_box: BlackBox,
    x: Variable,
    y: Variable,
) -> Variable {
    let ty = x.ty.elem_type();
    if is_narrow(ty) {
        let (x, y) = (cast(scope, x, F32), cast(scope, y, F32));
        let wide = remainder(scope, black_box, x, y);
        return cast(scope, wide, ty);
    }
    let exact = if ty == F32 && black_box.words_of_64 {
        long_division(scope, black_box, x, y)
    } else {
        put(
            scope,
            Arithmetic::Modulo(BinaryOperator { lhs: x, rhs: y }),
            ty,
        )
    };
    let x_infinite = is_infinite(scope, black_box, x);
    let y_infinite = is_infinite(scope, black_box, y);
    let y_zero = compared(scope, black_box, Binary::Eq, y, float(0.0, ty));
    let exact = select(scope, y_infinite, x, exact);
    let odd = either(scope, x_infinite, y_zero);
    let nan = quiet_nan(scope, black_box, ty);
    let result = select(scope, odd, nan, exact);
    let result = nan_where(scope, black_box, x, result);
    nan_where(scope, black_box, y, result)
}

/// Bits of the quotient that one division of 64 by 24 bits yields.
const STEP: u64 = 40;
/// Steps for the quotient of the largest and the least `f32`, which has 277 bits.
const STEPS: u64 = 7;

/// The remainder of two `f32`, calculated with their integer significands.
fn long_division(scope: &mut Scope, black_box: BlackBox, x: Variable, y: Variable) -> Variable {
    let word = |value: u64| constant(ConstantValue::UInt(value), U32);
    let op = |scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable| {
        arithmetic(scope, black_box, op, lhs, rhs)
    };
    // The bits of a float, and the exponent (at least 1) and the significand of its magnitude.
    let parts = |scope: &mut Scope, value: Variable| {
        let bits = reinterpret(scope, value, U32);
        let magnitude = op(scope, Binary::BitAnd, bits, word(0x7FFF_FFFF));
        let field = op(scope, Binary::Shr, magnitude, word(23));
        let fraction = op(scope, Binary::BitAnd, magnitude, word(0x7F_FFFF));
        let normal = op(scope, Binary::Ne, field, word(0));
        let leading = select(scope, normal, word(0x80_0000), word(0));
        let significand = op(scope, Binary::BitOr, fraction, leading);
        let exponent = op(scope, Binary::Max, field, word(1));
        (bits, exponent, significand)
    };
    let (x_bits, x_exponent, x_part) = parts(scope, x);
    let (_, y_exponent, y_part) = parts(scope, y);
    let lesser = op(scope, Binary::Lt, x_exponent, y_exponent);
    let gap = op(scope, Binary::Sub, x_exponent, y_exponent);
    let gap = select(scope, lesser, word(0), gap);
    let divisor = op(scope, Binary::Max, y_part, word(1));
    let divisor = cast(scope, divisor, U64);

    let rest = *scope.create_local_restricted(IrType::scalar(U64));
    let left = *scope.create_local_restricted(IrType::scalar(U32));
    let set = |scope: &mut Scope, local: Variable, value: Variable| {
        scope.register(Instruction::new(Operation::Copy(value), local));
    };
    let get = |scope: &mut Scope, local: Variable| {
        let out = *scope.create_local(local.ty);
        scope.register(Instruction::new(Operation::Copy(local), out));
        out
    };
    let first = cast(scope, x_part, U64);
    let first = op(scope, Binary::Rem, first, divisor);
    set(scope, rest, first);
    set(scope, left, gap);
    for _ in 0..STEPS {
        let remaining = get(scope, left);
        let cond = op(scope, Binary::Ne, remaining, word(0));
        let mut then = scope.child();
        let count = op(&mut then, Binary::Min, remaining, word(STEP));
        let wide = cast(&mut then, count, U64);
        let value = get(&mut then, rest);
        let value = op(&mut then, Binary::Shl, value, wide);
        let value = op(&mut then, Binary::Rem, value, divisor);
        set(&mut then, rest, value);
        let fewer = op(&mut then, Binary::Sub, remaining, count);
        set(&mut then, left, fewer);
        scope.register(Branch::If(Box::new(If { cond, scope: then })));
    }

    // The rest is in units of the last place of `y`, so `y`'s exponent applies to it.
    let rest = get(scope, rest);
    let rest = cast(scope, rest, U32);
    let magnitude = assembled(scope, black_box, rest, y_exponent);
    let sign = op(scope, Binary::BitAnd, x_bits, word(0x8000_0000));
    let bits = op(scope, Binary::BitOr, magnitude, sign);
    let result = reinterpret(scope, bits, F32);
    // If `x` has the lesser exponent, `x` is the remainder.
    select(scope, lesser, x, result)
}

/// The bits of the float that is an integer below 2^24 times the last place of a number with this
/// exponent.
fn assembled(
    scope: &mut Scope,
    black_box: BlackBox,
    value: Variable,
    exponent: Variable,
) -> Variable {
    let word = |value: u64| constant(ConstantValue::UInt(value), U32);
    let op = |scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable| {
        arithmetic(scope, black_box, op, lhs, rhs)
    };
    // An integer of 24 bits is exact in `f32`, whose exponent gives its bit length.
    let scaled = cast(scope, value, F32);
    let bits = reinterpret(scope, scaled, U32);
    let field = op(scope, Binary::Shr, bits, word(23));
    // Index of the leading bit: 23 for an integer with all 24 bits.
    let length = op(scope, Binary::Sub, field, word(127));
    let lift = op(scope, Binary::Sub, word(23), length);
    let most = op(scope, Binary::Sub, exponent, word(1));
    let none = op(scope, Binary::Eq, value, word(0));
    let lift = select(scope, none, word(0), lift);
    let lift = op(scope, Binary::Min, lift, most);
    let lifted = op(scope, Binary::Shl, value, lift);
    let field = op(scope, Binary::Sub, most, lift);
    let field = op(scope, Binary::Shl, field, word(23));
    // The leading bit adds the one that was subtracted from the exponent.
    let packed = op(scope, Binary::Add, field, lifted);
    select(scope, none, word(0), packed)
}
