//! IEEE 754 floats on every device. Drivers may simplify float arithmetic as if it were that of
//! real numbers: Mesa simplifies `(b + a) - a` to `b`, `x - x` to 0 even if `x` is infinite, and
//! `if x < y, do: x, else: y` to a minimum, which loses NaN. So comparisons compare the bits as
//! integers, and the result of one operation goes through an integer operation that no driver can
//! simplify before the next operation uses it.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Bitwise, Comparison, ElemType, FloatKind, IntKind, Operator, Scope,
    UIntKind, UnaryOperator, Variable,
};

use crate::lower::types::{S32, U32, U64};
use crate::lower::values::{cast, constant, put, select};
use cubecl::ir::ConstantValue;
use ex_cubecl_core::program::tree::Binary;

const S64: ElemType = ElemType::Int(IntKind::I64);
const U16: ElemType = ElemType::UInt(UIntKind::U16);
const F32: ElemType = ElemType::Float(FloatKind::F32);
const F64: ElemType = ElemType::Float(FloatKind::F64);

/// Hides values from a driver's optimizer.
#[derive(Clone, Copy)]
pub(super) struct BlackBox {
    /// A word that is zero in each launch; no compiler knows its value.
    zero: Variable,
    /// Another word that is always zero, for `hide_apart`.
    apart: Variable,
    /// The same words with 64 bits.
    wide: Option<(Variable, Variable)>,
    pub words_of_16: bool,
    pub words_of_64: bool,
}

pub(super) fn is_float(ty: ElemType) -> bool {
    matches!(ty, ElemType::Float(_))
}

pub(super) fn is_narrow(ty: ElemType) -> bool {
    is_float(ty) && ty.size() == 2
}

fn two(
    scope: &mut Scope,
    op: fn(BinaryOperator) -> Bitwise,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    put(scope, op(BinaryOperator { lhs, rhs }), lhs.ty.elem_type())
}

fn plus(scope: &mut Scope, lhs: Variable, rhs: Variable) -> Variable {
    let sum = Arithmetic::Add(BinaryOperator { lhs, rhs });
    put(scope, sum, lhs.ty.elem_type())
}

fn compare(
    scope: &mut Scope,
    op: fn(BinaryOperator) -> Comparison,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    put(scope, op(BinaryOperator { lhs, rhs }), ElemType::Bool)
}

fn both(scope: &mut Scope, lhs: Variable, rhs: Variable) -> Variable {
    put(
        scope,
        Operator::And(BinaryOperator { lhs, rhs }),
        ElemType::Bool,
    )
}

pub(super) fn either(scope: &mut Scope, lhs: Variable, rhs: Variable) -> Variable {
    put(
        scope,
        Operator::Or(BinaryOperator { lhs, rhs }),
        ElemType::Bool,
    )
}

pub(super) fn not(scope: &mut Scope, input: Variable) -> Variable {
    put(
        scope,
        Operator::Not(UnaryOperator { input }),
        ElemType::Bool,
    )
}

pub(super) fn reinterpret(scope: &mut Scope, input: Variable, ty: ElemType) -> Variable {
    put(scope, Operator::Reinterpret(UnaryOperator { input }), ty)
}

fn word(value: u64, ty: ElemType) -> Variable {
    constant(ConstantValue::UInt(value), ty)
}

impl BlackBox {
    /// Each of these words is made once: CubeCL's optimizer compares all instructions of a block with each other.
    pub fn new(scope: &mut Scope, zero: Variable, words_of_16: bool, words_of_64: bool) -> Self {
        let apart = plus(scope, zero, zero);
        let wide = words_of_64.then(|| (cast(scope, zero, U64), cast(scope, apart, U64)));
        BlackBox {
            zero,
            apart,
            wide,
            words_of_16,
            words_of_64,
        }
    }

    /// Zero as an integer of this type.
    fn zero_of(self, scope: &mut Scope, ty: ElemType) -> Variable {
        match self.wide {
            Some((zero, _)) if ty == U64 => zero,
            _ => cast(scope, self.zero, ty),
        }
    }

    /// The unsigned integer type with the size of a float type, if the device has it.
    fn bits_of(self, ty: ElemType) -> Option<ElemType> {
        match ty.size() {
            2 => self.words_of_16.then_some(U16),
            8 => self.words_of_64.then_some(U64),
            _ => Some(U32),
        }
    }

    /// As `hide`, but the result differs, to a compiler, from a value hidden by `hide`, however
    /// often that was called.
    pub fn hide_apart(self, scope: &mut Scope, value: Variable) -> Variable {
        let wide = self.wide.map(|(_, apart)| (apart, apart));
        let other = BlackBox {
            zero: self.apart,
            wide,
            ..self
        };
        other.wrap(scope, value)
    }

    /// The same value, whose origin no compiler knows. It uses a sum, because compilers cancel two
    /// exclusive ors.
    pub fn wrap(self, scope: &mut Scope, value: Variable) -> Variable {
        let ty = value.ty.elem_type();
        match ty {
            ElemType::Bool => {
                let one = select(scope, value, word(1, U32), word(0, U32));
                let hidden = plus(scope, one, self.zero);
                compare(scope, Comparison::NotEqual, hidden, word(0, U32))
            }
            ElemType::Float(_) => self.hide_float(scope, value, ty),
            _ => {
                let zero = self.zero_of(scope, ty);
                plus(scope, value, zero)
            }
        }
    }

    fn hide_float(self, scope: &mut Scope, value: Variable, ty: ElemType) -> Variable {
        let Some(word) = self.bits_of(ty) else {
            return value;
        };
        // CUDA cannot take the bits of a constant, which has no address, so the bits are a constant
        // here.
        let bits = match value.as_const() {
            Some(ConstantValue::Float(number)) => constant(float_bits(number, ty), word),
            _ => reinterpret(scope, value, word),
        };
        let zero = self.zero_of(scope, word);
        let hidden = plus(scope, bits, zero);
        reinterpret(scope, hidden, ty)
    }
}

/// The bits of a constant that is exact in its type.
fn float_bits(number: f64, ty: ElemType) -> ConstantValue {
    let dtype = match ty {
        ElemType::Float(FloatKind::F16) => ex_cubecl_core::dtype::DType::F16,
        ElemType::Float(FloatKind::BF16) => ex_cubecl_core::dtype::DType::Bf16,
        ElemType::Float(FloatKind::F64) => ex_cubecl_core::dtype::DType::F64,
        _ => ex_cubecl_core::dtype::DType::F32,
    };
    let wide = ex_cubecl_core::dtype::DType::F64.into();
    ConstantValue::UInt(ex_cubecl_core::numeric::convert_bits(
        wide,
        dtype.into(),
        number.to_bits(),
    ))
}

/// A float as integers: its magnitude, unsigned, and a signed key that sorts as the floats do. Both
/// zeros have key 0; NaN has a magnitude above that of infinity.
struct Order {
    magnitude: Variable,
    key: Variable,
    infinity: Variable,
}

/// `None` for `f64` on a device without 64-bit integers.
fn order(scope: &mut Scope, black_box: BlackBox, value: Variable) -> Option<Order> {
    let ty = value.ty.elem_type();
    // Narrow floats are exact as wide ones, and keep their order.
    let (value, ty) = if is_narrow(ty) {
        (cast(scope, value, F32), F32)
    } else {
        (value, ty)
    };
    let unsigned = black_box.bits_of(ty)?;
    let (signed, last, infinity) = match ty {
        F64 => (S64, 63, 0x7FF0_0000_0000_0000),
        _ => (S32, 31, 0x7F80_0000),
    };
    let bits = match value.as_const() {
        Some(ConstantValue::Float(number)) => {
            let hidden = black_box.wrap(scope, constant(ConstantValue::Float(number), ty));
            reinterpret(scope, hidden, unsigned)
        }
        _ => reinterpret(scope, value, unsigned),
    };
    let magnitude = two(
        scope,
        Bitwise::BitwiseAnd,
        bits,
        word((1 << last) - 1, unsigned),
    );
    let as_signed = cast(scope, bits, signed);
    let last = constant(ConstantValue::Int(last), signed);
    // All bits set if the sign is set, else 0.
    let sign = two(scope, Bitwise::ShiftRight, as_signed, last);
    let flat = cast(scope, magnitude, signed);
    let flipped = two(scope, Bitwise::BitwiseXor, flat, sign);
    let key = Arithmetic::Sub(BinaryOperator {
        lhs: flipped,
        rhs: sign,
    });
    Some(Order {
        magnitude,
        key: put(scope, key, signed),
        infinity: word(infinity, unsigned),
    })
}

pub(super) fn is_nan(scope: &mut Scope, black_box: BlackBox, value: Variable) -> Variable {
    match order(scope, black_box, value) {
        Some(of) => compare(scope, Comparison::Greater, of.magnitude, of.infinity),
        None => put(
            scope,
            Comparison::IsNan(UnaryOperator { input: value }),
            ElemType::Bool,
        ),
    }
}

pub(super) fn is_infinite(scope: &mut Scope, black_box: BlackBox, value: Variable) -> Variable {
    match order(scope, black_box, value) {
        Some(of) => compare(scope, Comparison::Equal, of.magnitude, of.infinity),
        None => put(
            scope,
            Comparison::IsInf(UnaryOperator { input: value }),
            ElemType::Bool,
        ),
    }
}

fn comparison(op: Binary) -> fn(BinaryOperator) -> Comparison {
    match op {
        Binary::Lt => Comparison::Lower,
        Binary::Le => Comparison::LowerEqual,
        Binary::Gt => Comparison::Greater,
        Binary::Ge => Comparison::GreaterEqual,
        _ => Comparison::Equal,
    }
}

/// Whether two floats compare so; both are numbers. NaN is unequal to every value, and neither less nor greater than any.
fn ordered(scope: &mut Scope, op: Binary, a: &Order, b: &Order) -> Variable {
    let holds = compare(scope, comparison(op), a.key, b.key);
    let most = Arithmetic::Max(BinaryOperator {
        lhs: a.magnitude,
        rhs: b.magnitude,
    });
    let most = put(scope, most, a.magnitude.ty.elem_type());
    let numbers = compare(scope, Comparison::LowerEqual, most, a.infinity);
    both(scope, numbers, holds)
}

pub(super) fn compared(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    if op == Binary::Ne {
        let equal = compared(scope, black_box, Binary::Eq, lhs, rhs);
        return not(scope, equal);
    }
    match (order(scope, black_box, lhs), order(scope, black_box, rhs)) {
        (Some(a), Some(b)) => ordered(scope, op, &a, &b),
        _ => compare(scope, comparison(op), lhs, rhs),
    }
}

/// The minimum or maximum; NaN if either operand is NaN; the first of two zeros.
pub(super) fn extreme(
    scope: &mut Scope,
    black_box: BlackBox,
    op: Binary,
    lhs: Variable,
    rhs: Variable,
) -> Variable {
    let wanted = match op {
        Binary::Min => Binary::Le,
        _ => Binary::Ge,
    };
    // For an unordered pair: the first operand if it is NaN, else the second.
    let (holds, nan) = match (order(scope, black_box, lhs), order(scope, black_box, rhs)) {
        (Some(a), Some(b)) => {
            let holds = ordered(scope, wanted, &a, &b);
            (
                holds,
                compare(scope, Comparison::Greater, a.magnitude, a.infinity),
            )
        }
        _ => {
            let holds = compare(scope, comparison(wanted), lhs, rhs);
            (holds, is_nan(scope, black_box, lhs))
        }
    };
    let first = either(scope, holds, nan);
    select(scope, first, lhs, rhs)
}

pub(super) fn float(value: f64, ty: ElemType) -> Variable {
    constant(ConstantValue::Float(value), ty)
}

/// NaN if the input is NaN.
pub(super) fn nan_where(
    scope: &mut Scope,
    black_box: BlackBox,
    input: Variable,
    result: Variable,
) -> Variable {
    let ty = input.ty.elem_type();
    let cond = is_nan(scope, black_box, input);
    let nan = quiet_nan(scope, black_box, ty);
    select(scope, cond, nan, result)
}

pub(super) fn quiet_nan(scope: &mut Scope, black_box: BlackBox, ty: ElemType) -> Variable {
    black_box.wrap(scope, float(f64::NAN, ty))
}
