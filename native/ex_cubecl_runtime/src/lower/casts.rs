//! Type casts in kernels, by the rules of `numeric`: floats are truncated toward zero and clamped
//! to an integer type, integers keep their low bits, floats are rounded once.

use cubecl::ir::{
    ConstantValue, ElemType, FloatKind, IntKind, ManagedVariable, Scope, UIntKind, Variable,
};

use crate::kernels::convert_bits;
use crate::lower::floats::{BlackBox, compared, is_float, is_narrow, reinterpret};
use crate::lower::types::{S32, U32, elem};
use crate::lower::values::{cast, constant, number, select, zero};
use ex_cubecl_core::dtype::{DType, Kind};
use ex_cubecl_core::program::tree::Binary;

const F32: ElemType = ElemType::Float(FloatKind::F32);

pub(super) fn cast_value(
    scope: &mut Scope,
    black_box: BlackBox,
    value: Variable,
    to: DType,
) -> Variable {
    let ty = elem(to);
    let from = value.ty.elem_type();
    match (from, to.kind()) {
        _ if from == ty => value,
        (ElemType::Bool, _) => select(scope, value, number(1, ty), zero(ty)),
        (ElemType::Float(_), Kind::Float) => between_floats(scope, black_box, value, to),
        (ElemType::Float(_), _) => integer_of_float(scope, black_box, value, to),
        (_, Kind::Float) => float_of_integer(scope, black_box, value, to),
        _ => between_integers(scope, black_box, value, ty),
    }
}

/// The bits of a value as another type of the same size. Between integers, that is a cast.
pub(super) fn bits_as(scope: &mut Scope, value: Variable, ty: ElemType) -> Variable {
    let from = value.ty.elem_type();
    if from == ty || !(is_float(from) || is_float(ty)) {
        cast(scope, value, ty)
    } else {
        reinterpret(scope, value, ty)
    }
}

/// CubeCL treats a signed integer as unsigned when it casts it to a wider unsigned type. Mesa
/// treats a value that was widened from 32 to 64 bits as not negative in a comparison with a
/// constant, if its optimizer sees the widening.
fn between_integers(
    scope: &mut Scope,
    black_box: BlackBox,
    value: Variable,
    ty: ElemType,
) -> Variable {
    let from = value.ty.elem_type();
    let wide = extended(scope, value, ty);
    if from.size() == 4 && ty.size() == 8 {
        black_box.wrap(scope, wide)
    } else {
        wide
    }
}

fn extended(scope: &mut Scope, value: Variable, ty: ElemType) -> Variable {
    let from = value.ty.elem_type();
    let wider = ty.size() > from.size();
    match (from, ty) {
        (ElemType::Int(_), ElemType::UInt(_)) if wider => {
            let signed = match ty.size() {
                2 => ElemType::Int(IntKind::I16),
                4 => S32,
                _ => ElemType::Int(IntKind::I64),
            };
            let extended = cast(scope, value, signed);
            cast(scope, extended, ty)
        }
        _ => cast(scope, value, ty),
    }
}

fn between_floats(scope: &mut Scope, black_box: BlackBox, value: Variable, to: DType) -> Variable {
    let from = value.ty.elem_type();
    let ty = elem(to);
    match (is_narrow(from), is_narrow(ty)) {
        // Drivers round to 32 bits first.
        (false, true) if from.size() == 8 && black_box.words_of_16 && black_box.words_of_64 => {
            by_bits(scope, value, DType::F64, to)
        }
        (false, true) if from.size() == 8 => {
            let middle = cast(scope, value, F32);
            let middle = black_box.wrap(scope, middle);
            cast(scope, middle, ty)
        }
        // Between the two 16-bit types, or from one of them to `f64`.
        (true, _) if ty != F32 => {
            let wide = cast(scope, value, F32);
            cast(scope, wide, ty)
        }
        _ => cast(scope, value, ty),
    }
}

fn float_of_integer(
    scope: &mut Scope,
    black_box: BlackBox,
    value: Variable,
    to: DType,
) -> Variable {
    let from = value.ty.elem_type();
    let ty = elem(to);
    if !is_narrow(ty) {
        return cast(scope, value, ty);
    }
    // Integers up to 24 bits are exact in `f32`, and larger ones infinite in `f16`.
    if to == DType::F16 || from.size() < 4 || !black_box.words_of_16 {
        let wide = cast(scope, value, F32);
        return cast(scope, wide, ty);
    }
    let source = match from {
        ElemType::UInt(UIntKind::U32) => DType::U32,
        ElemType::UInt(_) => DType::U64,
        ElemType::Int(IntKind::I32) => DType::S32,
        _ => DType::S64,
    };
    by_bits(scope, value, source, to)
}

/// Converts with integer arithmetic, as `Buffer::convert` does.
fn by_bits(scope: &mut Scope, value: Variable, from: DType, to: DType) -> Variable {
    let same_size = |dtype: DType| {
        ElemType::UInt(match dtype.size() {
            2 => UIntKind::U16,
            4 => UIntKind::U32,
            _ => UIntKind::U64,
        })
    };
    let word = same_size(from);
    let bits = if is_float(value.ty.elem_type()) {
        reinterpret(scope, value, word)
    } else {
        cast(scope, value, word)
    };
    let bits = ManagedVariable::Plain(bits);
    let out = if word == U32 {
        *convert_bits::expand::<u32>(scope, bits.into(), from.into(), to.into()).expand
    } else {
        *convert_bits::expand::<u64>(scope, bits.into(), from.into(), to.into()).expand
    };
    let narrow = cast(scope, out, same_size(to));
    reinterpret(scope, narrow, elem(to))
}

fn integer_of_float(
    scope: &mut Scope,
    black_box: BlackBox,
    value: Variable,
    to: DType,
) -> Variable {
    let from = if is_narrow(value.ty.elem_type()) {
        F32
    } else {
        value.ty.elem_type()
    };
    let value = cast(scope, value, from);
    let ty = elem(to);
    let bits = 8 * to.size() as i32;
    let (low, past) = match to.kind() {
        Kind::Signed => (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1)),
        _ => (0.0, 2f64.powi(bits)),
    };
    let compared_with = |scope: &mut Scope, op: Binary, bound: f64| {
        let bound = constant(ConstantValue::Float(bound), from);
        compared(scope, black_box, op, value, bound)
    };
    let above = compared_with(scope, Binary::Ge, past);
    let below = compared_with(scope, Binary::Lt, low);
    let inside = compared_with(scope, Binary::Ge, low);
    let safe = select(scope, inside, value, zero(from));
    let safe = select(scope, above, zero(from), safe);
    // Narrow types are cast from a 32-bit word: the value has been clamped to fit them.
    let middle = match (ty.size() < 4, to.kind()) {
        (true, Kind::Signed) => S32,
        (true, _) => U32,
        _ => ty,
    };
    let whole = cast(scope, safe, middle);
    let whole = cast(scope, whole, ty);
    let (least, most) = ends(to);
    let held = select(scope, above, constant(most, ty), whole);
    select(scope, below, constant(least, ty), held)
}

fn ends(dtype: DType) -> (ConstantValue, ConstantValue) {
    let unused = 64 - 8 * dtype.size() as u32;
    match dtype.kind() {
        Kind::Signed => (
            ConstantValue::Int(i64::MIN >> unused),
            ConstantValue::Int(i64::MAX >> unused),
        ),
        _ => (
            ConstantValue::UInt(0),
            ConstantValue::UInt(u64::MAX >> unused),
        ),
    }
}
