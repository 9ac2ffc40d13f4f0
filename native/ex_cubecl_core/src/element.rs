//! Conversion of numbers to the bits of an element.

use crate::dtype::{DType, Kind};
use crate::numeric::convert_bits;

/// The bits of an integer, or `None` if the type cannot represent it. Float types take the nearest
/// value, ties to even, of every integer that fits 64 bits.
pub fn of_int(dtype: DType, value: i128) -> Option<u64> {
    let bits = 8 * dtype.size() as u32;
    match dtype.kind() {
        Kind::Float => match u64::try_from(value) {
            Ok(value) => Some(convert_bits(DType::U64.into(), dtype.into(), value)),
            Err(_) => {
                let value = i64::try_from(value).ok()?;
                Some(convert_bits(DType::S64.into(), dtype.into(), value as u64))
            }
        },
        Kind::Signed => {
            let bound = 1i128 << (bits - 1);
            let fits = (-bound..bound).contains(&value);
            fits.then(|| value as u64 & (u64::MAX >> (64 - bits)))
        }
        Kind::Unsigned => (0..1i128 << bits).contains(&value).then_some(value as u64),
    }
}

/// The bits of a float, rounded to nearest, ties to even; values beyond the largest finite one
/// become infinity. `None` for integer types.
pub fn of_float(dtype: DType, value: f64) -> Option<u64> {
    let is_float = dtype.kind() == Kind::Float;
    is_float.then(|| convert_bits(DType::F64.into(), dtype.into(), value.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;

    #[test]
    fn integers_fit_exactly_up_to_their_bounds() {
        assert_eq!(of_int(U8, 255), Some(255));
        assert_eq!(of_int(U8, 256), None);
        assert_eq!(of_int(U8, -1), None);
        assert_eq!(of_int(S8, -128), Some(0x80));
        assert_eq!(of_int(S8, 128), None);
        assert_eq!(of_int(U64, u64::MAX.into()), Some(u64::MAX));
        assert_eq!(of_int(U64, 1 << 64), None);
        assert_eq!(of_int(S64, i64::MIN.into()), Some(1 << 63));
        assert_eq!(of_int(S64, 1 << 63), None);
    }

    #[test]
    fn integers_in_float_types_are_rounded_once() {
        let f32_bits = |value: f32| Some(u64::from(value.to_bits()));
        assert_eq!(of_int(F32, 16_777_217), f32_bits(16_777_216.0));
        assert_eq!(of_int(F32, u64::MAX.into()), f32_bits(u64::MAX as f32));
        assert_eq!(of_int(F16, 65_520), Some(0x7C00));
        // Just above a tie of bf16; an f64 cannot distinguish it from the tie.
        let tie = (1i128 << 62) + (1i128 << 54);
        let down = of_float(Bf16, 2f64.powi(62));
        assert_eq!(of_int(Bf16, tie), down);
        assert_eq!(of_int(Bf16, tie + 1), down.map(|bits| bits + 1));
        assert_eq!(
            of_int(Bf16, -(tie + 1)),
            down.map(|bits| (bits + 1) | 0x8000)
        );
    }

    #[test]
    fn floats_are_rounded_from_all_of_their_bits() {
        let above_a_tie = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(of_float(F16, above_a_tie), Some(0x3C01));
        assert_eq!(
            of_float(F32, 1.0e40),
            Some(u64::from(f32::INFINITY.to_bits()))
        );
        assert_eq!(of_float(F64, -0.0), Some(1 << 63));
        assert_eq!(of_float(S32, 1.0), None);
    }
}
