//! The element types: one row each. Whatever depends on a type asks this table.

use std::fmt;

/// The type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F16,
    Bf16,
    F32,
    F64,
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
}

/// What the bits of an element mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Float,
    Signed,
    Unsigned,
}

use DType::*;
use Kind::*;

const TABLE: [(DType, &str, Kind, u32); 12] = [
    (F16, "f16", Float, 2),
    (Bf16, "bf16", Float, 2),
    (F32, "f32", Float, 4),
    (F64, "f64", Float, 8),
    (S8, "s8", Signed, 1),
    (S16, "s16", Signed, 2),
    (S32, "s32", Signed, 4),
    (S64, "s64", Signed, 8),
    (U8, "u8", Unsigned, 1),
    (U16, "u16", Unsigned, 2),
    (U32, "u32", Unsigned, 4),
    (U64, "u64", Unsigned, 8),
];

impl DType {
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }

    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub fn kind(self) -> Kind {
        TABLE[self as usize].2
    }

    /// Bytes per element.
    pub fn size(self) -> u64 {
        u64::from(TABLE[self as usize].3)
    }

    /// The bits of an integer as an element, or `None` where the type cannot hold it. Float types
    /// take the nearest value, ties to even.
    pub fn bits_of_int(self, value: i128) -> Option<u64> {
        let bits = 8 * self.size() as u32;
        match self.kind() {
            Float => Some(self.bits_of_wide_int(value)),
            Signed => {
                let bound = 1i128 << (bits - 1);
                let fits = (-bound..bound).contains(&value);
                fits.then(|| value as u64 & (u64::MAX >> (64 - bits)))
            }
            Unsigned => (0..1i128 << bits).contains(&value).then_some(value as u64),
        }
    }

    fn bits_of_wide_int(self, value: i128) -> u64 {
        match self {
            F32 => u64::from((value as f32).to_bits()),
            F64 => (value as f64).to_bits(),
            // Past 2^53 an f64 has been rounded once, yet f16 is infinite there; bf16 keeps the
            // same exponents as f32, and a sticky bit makes the second rounding harmless.
            _ => self.bits_of_float(sticky_f64(value)).unwrap_or(0),
        }
    }

    /// The bits of a float as an element, rounded to nearest, ties to even; past the largest
    /// finite value that is infinity. `None` for integer types.
    pub fn bits_of_float(self, value: f64) -> Option<u64> {
        match self {
            F64 => Some(value.to_bits()),
            F32 => Some(u64::from((value as f32).to_bits())),
            F16 => Some(u64::from(half::f16::from_f64(value).to_bits())),
            Bf16 => Some(u64::from(half::bf16::from_f64(value).to_bits())),
            _ => None,
        }
    }
}

/// An f64 that rounds to the same 16-bit float as `value` does: truncated, with the lowest bit
/// set where something was cut off (round to odd).
fn sticky_f64(value: i128) -> f64 {
    let near = value as f64;
    let back = near as i128;
    match back == value {
        true => near,
        false if back.unsigned_abs() > value.unsigned_abs() => {
            f64::from_bits((near.to_bits() - 1) | 1)
        }
        false => f64::from_bits(near.to_bits() | 1),
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
        }
    }

    #[test]
    fn integers_fit_exactly_up_to_their_bounds() {
        assert_eq!(U8.bits_of_int(255), Some(255));
        assert_eq!(U8.bits_of_int(256), None);
        assert_eq!(U8.bits_of_int(-1), None);
        assert_eq!(S8.bits_of_int(-128), Some(0x80));
        assert_eq!(S8.bits_of_int(128), None);
        assert_eq!(U64.bits_of_int(u64::MAX.into()), Some(u64::MAX));
        assert_eq!(U64.bits_of_int(1 << 64), None);
        assert_eq!(S64.bits_of_int(i64::MIN.into()), Some(1 << 63));
        assert_eq!(S64.bits_of_int(1 << 63), None);
    }

    #[test]
    fn integers_in_float_types_are_rounded_once() {
        assert_eq!(
            F32.bits_of_int(16_777_217),
            Some(u64::from(16_777_216f32.to_bits()))
        );
        assert_eq!(F16.bits_of_int(65_520), Some(0x7C00));
        // Just above a tie of bf16 that an f64 cannot tell from the tie.
        let tie = (1i128 << 62) + (1i128 << 54);
        let down = u64::from(half::bf16::from_f64(2f64.powi(62)).to_bits());
        assert_eq!(Bf16.bits_of_int(tie), Some(down));
        assert_eq!(Bf16.bits_of_int(tie + 1), Some(down + 1));
        assert_eq!(Bf16.bits_of_int(-(tie + 1)), Some((down + 1) | 0x8000));
    }
}
