//! Functions that drivers implement differently from IEEE 754 and C: they lose NaN, leave cases
//! out, or have an error that grows with the argument. Narrow floats are calculated with 32 bits
//! and rounded once.

use cubecl::ir::{
    Arithmetic, BinaryOperator, ConstantValue, ElemType, FloatKind, Scope, UnaryOperator, Variable,
};

use crate::lower::arithmetic::binary as arithmetic;
use crate::lower::floats::{
    BlackBox, compared, either, float, is_float, is_infinite, is_nan, is_narrow, nan_where, not,
    quiet_nan, reinterpret,
};
use crate::lower::remainder::remainder;
use crate::lower::types::U32;
use crate::lower::values::{cast, constant, put, select, unary};
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
        Binary::Pow => pow(scope, black_box, lhs, rhs),
        Binary::Atan2 => atan2(scope, black_box, lhs, rhs),
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
    match op {
        Unary::Log1p => log1p(scope, black_box, input),
        Unary::Log => log(scope, black_box, input),
        Unary::Sin | Unary::Cos | Unary::Tan => {
            let result = unary(scope, op, input);
            nan_where(scope, black_box, input, true, result)
        }
        Unary::Tanh | Unary::Sinh | Unary::Asin | Unary::Atan | Unary::Erf => {
            let result = unary(scope, op, input);
            let result = near_zero(scope, black_box, op, input, result);
            nan_where(scope, black_box, input, false, result)
        }
        Unary::Exp | Unary::Cosh | Unary::Acos | Unary::Sqrt | Unary::Rsqrt => {
            let result = unary(scope, op, input);
            nan_where(scope, black_box, input, false, result)
        }
        _ => unary(scope, op, input),
    }
}

/// Near zero, odd functions are approximated by a polynomial, because the formulas of drivers lose
/// the argument there.
fn near_zero(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Unary,
    input: Variable,
    result: Variable,
) -> Variable {
    let ty = input.ty.elem_type();
    // c1 x + c3 x^3 + c5 x^5, used up to where it is accurate to all digits of `f32`.
    let (c1, c3, c5) = match op {
        Unary::Tanh => (1.0, -1.0 / 3.0, 2.0 / 15.0),
        Unary::Sinh => (1.0, 1.0 / 6.0, 1.0 / 120.0),
        Unary::Asin => (1.0, 1.0 / 6.0, 3.0 / 40.0),
        Unary::Atan => (1.0, -1.0 / 3.0, 1.0 / 5.0),
        // Erf, whose slope at zero is 2 / sqrt(pi).
        _ => (
            std::f64::consts::FRAC_2_SQRT_PI,
            -std::f64::consts::FRAC_2_SQRT_PI / 3.0,
            std::f64::consts::FRAC_2_SQRT_PI / 10.0,
        ),
    };
    let mut step = |op: Binary, lhs: Variable, rhs: Variable| {
        let value = arithmetic(scope, black_box, op, lhs, rhs);
        black_box.wrap(scope, value)
    };
    let square = step(Binary::Mul, input, input);
    let inner = step(Binary::Mul, square, float(c5, ty));
    let inner = step(Binary::Add, inner, float(c3, ty));
    let inner = step(Binary::Mul, inner, square);
    let inner = step(Binary::Mul, inner, input);
    let slope = step(Binary::Mul, input, float(c1, ty));
    let value = step(Binary::Add, slope, inner);
    let magnitude = put(scope, Arithmetic::Abs(UnaryOperator { input }), ty);
    // For inputs so small that the linear term has all digits; it also keeps the sign of zero.
    let tiny = compared(scope, black_box, Binary::Lt, magnitude, float(1.0e-4, ty));
    let value = select(scope, tiny, slope, value);
    let near = compared(scope, black_box, Binary::Lt, magnitude, float(0.0625, ty));
    select(scope, near, value, result)
}

/// `log(1 + x)` for `x` below 1/16, where the logarithms of drivers lose `x`: twice the inverse
/// hyperbolic tangent of `x / (2 + x)`.
fn log_near_one(scope: &mut Scope, black_box: BlackBox, x: Variable) -> Variable {
    let ty = x.ty.elem_type();
    let mut step = |op: Binary, lhs: Variable, rhs: Variable| {
        let value = arithmetic(scope, black_box, op, lhs, rhs);
        black_box.wrap(scope, value)
    };
    let sum = step(Binary::Add, x, float(2.0, ty));
    let slope = step(Binary::Div, x, sum);
    let square = step(Binary::Mul, slope, slope);
    let inner = step(Binary::Mul, square, float(2.0 / 5.0, ty));
    let inner = step(Binary::Add, inner, float(2.0 / 3.0, ty));
    let inner = step(Binary::Mul, inner, square);
    let inner = step(Binary::Mul, inner, slope);
    let twice = step(Binary::Add, slope, slope);
    step(Binary::Add, twice, inner)
}

fn is_near(scope: &mut Scope, black_box: BlackBox, x: Variable, bound: f64) -> Variable {
    let ty = x.ty.elem_type();
    let magnitude = put(scope, Arithmetic::Abs(UnaryOperator { input: x }), ty);
    compared(scope, black_box, Binary::Lt, magnitude, float(bound, ty))
}

fn log(scope: &mut Scope, black_box: BlackBox, x: Variable) -> Variable {
    let ty = x.ty.elem_type();
    let rest = arithmetic(scope, black_box, Binary::Sub, x, float(1.0, ty));
    let rest = black_box.wrap(scope, rest);
    let close = log_near_one(scope, black_box, rest);
    let near = is_near(scope, black_box, rest, 0.0625);
    // Drivers treat subnormal numbers as the least normal one.
    let tiny = is_near(scope, black_box, x, f64::from(f32::MIN_POSITIVE));
    let raised = arithmetic(scope, black_box, Binary::Mul, x, float(RAISE, ty));
    let raised = select(scope, tiny, raised, x);
    let raised = black_box.wrap(scope, raised);
    let far = unary(scope, Unary::Log, raised);
    let far = black_box.wrap(scope, far);
    let lowered = arithmetic(scope, black_box, Binary::Sub, far, float(RAISE.ln(), ty));
    let far = select(scope, tiny, lowered, far);
    let value = select(scope, near, close, far);
    nan_where(scope, black_box, x, false, value)
}

/// 2^32
const RAISE: f64 = 4_294_967_296.0;

fn log1p(scope: &mut Scope, black_box: BlackBox, x: Variable) -> Variable {
    let ty = x.ty.elem_type();
    let sum = arithmetic(scope, black_box, Binary::Add, x, float(1.0, ty));
    let sum = black_box.wrap(scope, sum);
    let far = unary(scope, Unary::Log, sum);
    let close = log_near_one(scope, black_box, x);
    let near = is_near(scope, black_box, x, 0.0625);
    let value = select(scope, near, close, far);
    // So small that `x` is its own logarithm, and keeps its sign.
    let tiny = is_near(scope, black_box, x, 1.0e-8);
    let value = select(scope, tiny, x, value);
    nan_where(scope, black_box, x, false, value)
}

/// As in C: 1 if the exponent is 0 or the base is 1; a negative base gives a negative result only
/// for odd exponents.
pub(super) fn pow(scope: &mut Scope, black_box: BlackBox, x: Variable, y: Variable) -> Variable {
    let ty = x.ty.elem_type();
    if is_narrow(ty) {
        let (x, y) = (cast(scope, x, F32), cast(scope, y, F32));
        let wide = pow(scope, black_box, x, y);
        return cast(scope, wide, ty);
    }
    let magnitude = put(scope, Arithmetic::Abs(UnaryOperator { input: x }), ty);
    let magnitude = black_box.wrap(scope, magnitude);
    let (lhs, rhs) = (magnitude, y);
    let power = put(scope, Arithmetic::Powf(BinaryOperator { lhs, rhs }), ty);
    let power = limits(scope, black_box, magnitude, y, power);
    let power = black_box.wrap(scope, power);
    let one = float(1.0, ty);
    let is = |scope: &mut Scope, op: Binary, a: Variable, b: Variable| {
        compared(scope, black_box, op, a, b)
    };
    let and = |scope: &mut Scope, a: Variable, b: Variable| {
        arithmetic(scope, black_box, Binary::And, a, b)
    };

    // For a negative base.
    let whole_y = put(scope, Arithmetic::Trunc(UnaryOperator { input: y }), ty);
    let whole = is(scope, Binary::Eq, whole_y, y);
    let half = arithmetic(scope, black_box, Binary::Mul, y, float(0.5, ty));
    let half = black_box.wrap(scope, half);
    let whole_half = put(scope, Arithmetic::Trunc(UnaryOperator { input: half }), ty);
    let even = is(scope, Binary::Eq, whole_half, half);
    let uneven = not(scope, even);
    let odd = and(scope, whole, uneven);
    let minus = has_sign(scope, black_box, x);
    let turned = put(scope, Arithmetic::Neg(UnaryOperator { input: power }), ty);
    let flip = and(scope, minus, odd);
    let signed = select(scope, flip, turned, power);
    let below = is(scope, Binary::Lt, x, float(0.0, ty));
    let infinite = is_infinite(scope, black_box, x);
    let finite = not(scope, infinite);
    let broken = not(scope, whole);
    let nowhere = and(scope, below, finite);
    let nowhere = and(scope, nowhere, broken);
    let nan = quiet_nan(scope, black_box, ty);
    let value = select(scope, nowhere, nan, signed);

    let x_nan = is_nan(scope, black_box, x);
    let y_nan = is_nan(scope, black_box, y);
    let unordered = either(scope, x_nan, y_nan);
    let value = select(scope, unordered, nan, value);
    // -1 to the power of an infinity is 1.
    let unit = is(scope, Binary::Eq, magnitude, one);
    let y_infinite = is_infinite(scope, black_box, y);
    let unit = and(scope, unit, y_infinite);
    let x_one = is(scope, Binary::Eq, x, one);
    let y_zero = is(scope, Binary::Eq, y, float(0.0, ty));
    let ones = either(scope, unit, x_one);
    let ones = either(scope, ones, y_zero);
    select(scope, ones, one, value)
}

/// The power of a magnitude if the base or the exponent is zero or infinite: 0 or infinity,
/// depending on whether it grows.
fn limits(
    scope: &mut Scope,
    black_box: BlackBox,
    magnitude: Variable,
    y: Variable,
    power: Variable,
) -> Variable {
    let ty = y.ty.elem_type();
    let (zero, one) = (float(0.0, ty), float(1.0, ty));
    let none = compared(scope, black_box, Binary::Eq, magnitude, zero);
    let all = is_infinite(scope, black_box, magnitude);
    let endless = is_infinite(scope, black_box, y);
    let limit = either(scope, none, all);
    let limit = either(scope, limit, endless);
    let large = compared(scope, black_box, Binary::Gt, magnitude, one);
    let up = compared(scope, black_box, Binary::Gt, y, zero);
    let down = not(scope, up);
    let grows = select(scope, large, up, down);
    let infinity = black_box.wrap(scope, float(f64::INFINITY, ty));
    let bound = select(scope, grows, infinity, zero);
    select(scope, limit, bound, power)
}

pub(super) fn atan2(scope: &mut Scope, black_box: BlackBox, y: Variable, x: Variable) -> Variable {
    let ty = x.ty.elem_type();
    if is_narrow(ty) {
        let (y, x) = (cast(scope, y, F32), cast(scope, x, F32));
        let wide = atan2(scope, black_box, y, x);
        return cast(scope, wide, ty);
    }
    let mut step = |op: Binary, lhs: Variable, rhs: Variable| {
        let value = arithmetic(scope, black_box, op, lhs, rhs);
        black_box.wrap(scope, value)
    };
    let (x_size, y_size) = {
        let zero = float(0.0, ty);
        let x_minus = step(Binary::Sub, zero, x);
        let y_minus = step(Binary::Sub, zero, y);
        (step(Binary::Max, x, x_minus), step(Binary::Max, y, y_minus))
    };
    let less = step(Binary::Min, x_size, y_size);
    let more = step(Binary::Max, x_size, y_size);
    let ratio = step(Binary::Div, less, more);
    // Two zeros are treated as a point on the axis, and two infinities as a point on the diagonal.
    let zeros = compared(scope, black_box, Binary::Eq, more, float(0.0, ty));
    let ratio = select(scope, zeros, more, ratio);
    let infinite = is_infinite(scope, black_box, less);
    let ratio = select(scope, infinite, float(1.0, ty), ratio);
    let ratio = black_box.wrap(scope, ratio);
    let angle = of_one(scope, black_box, Unary::Atan, ratio);
    let angle = black_box.wrap(scope, angle);
    let steep = compared(scope, black_box, Binary::Gt, y_size, x_size);
    let turned = arithmetic(
        scope,
        black_box,
        Binary::Sub,
        float(std::f64::consts::FRAC_PI_2, ty),
        angle,
    );
    let angle = select(scope, steep, turned, angle);
    let angle = black_box.wrap(scope, angle);
    let turned = arithmetic(
        scope,
        black_box,
        Binary::Sub,
        float(std::f64::consts::PI, ty),
        angle,
    );
    let behind = has_sign(scope, black_box, x);
    let angle = select(scope, behind, turned, angle);
    let angle = black_box.wrap(scope, angle);
    let turned = put(scope, Arithmetic::Neg(UnaryOperator { input: angle }), ty);
    let below = has_sign(scope, black_box, y);
    let angle = select(scope, below, turned, angle);
    let angle = nan_where(scope, black_box, x, false, angle);
    nan_where(scope, black_box, y, false, angle)
}

/// Whether the sign bit of an `f32` is set, also for zero.
fn has_sign(scope: &mut Scope, black_box: BlackBox, value: Variable) -> Variable {
    let bits = reinterpret(scope, value, U32);
    let word = |value: u64| constant(ConstantValue::UInt(value), U32);
    let sign = arithmetic(scope, black_box, Binary::BitAnd, bits, word(1 << 31));
    arithmetic(scope, black_box, Binary::Ne, sign, word(0))
}
