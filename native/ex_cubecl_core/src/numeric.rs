//! The bit formats of elements, and the conversion between types. It uses integer arithmetic only: any
//! device, whichever types it supports, repeats the same steps and produces the same bits (see
//! `kernels/convert.rs`).
//!
//! Floats to integers are truncated toward zero and clamped to the range; NaN becomes zero. Integers to
//! integers keep their low bits. Conversions to floats round to nearest, ties to even, and overflow to
//! infinity; subnormal numbers and the sign of zero are kept, NaN loses its payload and sign. Casts and
//! stores of kernels do the same (`lower/casts.rs`).

#[cfg(any(test, feature = "testing"))]
pub mod samples;
#[cfg(test)]
mod tests;

use crate::dtype::{DType, Kind};

/// The bit fields of an element: sign, `exp` bits of exponent, `man` bits of fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    pub kind: Kind,
    pub bits: u32,
    /// Zero for integers, as is `man`.
    pub exp: u32,
    pub man: u32,
}

impl From<DType> for Format {
    fn from(dtype: DType) -> Self {
        let (exp, man) = match dtype {
            DType::F16 => (5, 10),
            DType::Bf16 => (8, 7),
            DType::F32 => (8, 23),
            DType::F64 => (11, 52),
            _ => (0, 0),
        };
        Format {
            kind: dtype.kind(),
            bits: 8 * dtype.size() as u32,
            exp,
            man,
        }
    }
}

impl Format {
    pub fn is_float(self) -> bool {
        self.kind == Kind::Float
    }

    pub fn is_signed(self) -> bool {
        self.kind == Kind::Signed
    }

    /// A mask of all bits of an element.
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    pub fn sign_bit(self) -> u64 {
        1 << (self.bits - 1)
    }

    /// The implicit leading bit of a normal number's significand.
    pub fn leading_bit(self) -> u64 {
        1 << self.man
    }

    pub fn fraction_mask(self) -> u64 {
        self.leading_bit() - 1
    }

    /// The exponent field of infinities and NaN.
    pub fn exponent_max(self) -> u32 {
        (1 << self.exp) - 1
    }

    pub fn bias(self) -> u32 {
        self.exponent_max() >> 1
    }

    pub fn infinity(self) -> u64 {
        u64::from(self.exponent_max()) << self.man
    }

    pub fn nan(self) -> u64 {
        self.infinity() | 1 << (self.man - 1)
    }

    /// The bits of the largest integer.
    pub fn highest(self) -> u64 {
        self.mask() >> u32::from(self.is_signed())
    }

    /// The bits of the lowest integer.
    pub fn lowest(self) -> u64 {
        self.mask() ^ self.highest()
    }
}

/// Converts one element, given in the lowest bits.
#[inline]
pub fn convert_bits(src: Format, dst: Format, bits: u64) -> u64 {
    match (src.is_float(), dst.is_float()) {
        _ if src == dst => bits,
        (false, false) => integer(src, bits) & dst.mask(),
        (false, true) => float_of_integer(src, dst, bits),
        (true, false) => integer_of_float(src, dst, bits),
        (true, true) => between_floats(src, dst, bits),
    }
}

/// An integer element, sign-extended to 64 bits.
fn integer(src: Format, bits: u64) -> u64 {
    if src.is_signed() {
        ((bits << (64 - src.bits)) as i64 >> (64 - src.bits)) as u64
    } else {
        bits
    }
}

fn float_of_integer(src: Format, dst: Format, bits: u64) -> u64 {
    let value = integer(src, bits);
    let sign = u64::from(src.is_signed()) & (value >> 63);
    let magnitude = match sign {
        1 => value.wrapping_neg(),
        _ => value,
    };
    pack(magnitude, dst.bias(), dst) | sign << (dst.bits - 1)
}

/// The fields of a float. A subnormal number has exponent one and no leading bit.
struct Fields {
    sign: u64,
    exponent: u32,
    fraction: u64,
    significand: u64,
}

fn fields(src: Format, bits: u64) -> Fields {
    let fraction = bits & src.fraction_mask();
    let exponent = (bits >> src.man) as u32 & src.exponent_max();
    Fields {
        sign: bits >> (src.bits - 1),
        exponent: exponent.max(1),
        fraction,
        significand: fraction | u64::from(exponent > 0) << src.man,
    }
}

fn integer_of_float(src: Format, dst: Format, bits: u64) -> u64 {
    let float = fields(src, bits);
    if float.exponent == src.exponent_max() {
        return match (float.fraction, float.sign) {
            (0, 0) => dst.highest(),
            (0, _) => dst.lowest(),
            _ => 0,
        };
    }
    // From this exponent on the significand is a whole number.
    let whole = src.bias() + src.man;
    let magnitude = if float.exponent >= whole {
        shl_saturating(float.significand, float.exponent - whole)
    } else {
        float
            .significand
            .checked_shr(whole - float.exponent)
            .unwrap_or(0)
    };
    match float.sign {
        0 => magnitude.min(dst.highest()),
        // The negation of the lowest integer is itself.
        _ => magnitude.min(dst.lowest()).wrapping_neg() & dst.mask(),
    }
}

/// `value * 2^count`, or the largest number if that does not fit.
fn shl_saturating(value: u64, count: u32) -> u64 {
    if count <= value.leading_zeros() {
        value << count
    } else {
        u64::MAX
    }
}

fn between_floats(src: Format, dst: Format, bits: u64) -> u64 {
    let float = fields(src, bits);
    let sign = float.sign << (dst.bits - 1);
    if float.exponent == src.exponent_max() {
        return match float.fraction {
            0 => dst.infinity() | sign,
            _ => dst.nan(),
        };
    }
    let magnitude = if dst.exp > src.exp {
        let weight = float.exponent + dst.bias() - src.bias() - src.man;
        pack(float.significand, weight, dst)
    } else {
        narrow(src, dst, float.exponent, float.significand)
    };
    magnitude | sign
}

/// Packs a magnitude whose lowest bit has the biased exponent `weight`, which is always that of a
/// normal number.
fn pack(magnitude: u64, weight: u32, dst: Format) -> u64 {
    if magnitude == 0 {
        return 0;
    }
    let top = magnitude.ilog2();
    let kept = if top > dst.man {
        round_shift(magnitude, top - dst.man)
    } else {
        magnitude << (dst.man - top)
    };
    // The leading bit of `kept` adds one to the exponent, which was made one too small for that;
    // rounding up to the next power of two carries into the exponent.
    let packed = (u64::from(weight + top - 1) << dst.man) + kept;
    packed.min(dst.infinity())
}

/// Packs a significand for a format with no more exponents than its own, so that it needs no
/// normalisation.
fn narrow(src: Format, dst: Format, exponent: u32, significand: u64) -> u64 {
    let lift = dst.man.saturating_sub(src.man);
    let cut = src.man + lift - dst.man;
    let gap = src.bias() - dst.bias();
    let (exponent, cut) = if exponent > gap {
        (exponent - gap, cut)
    } else {
        (1, cut + gap + 1 - exponent)
    };
    let kept = round_shift(significand << lift, cut.min(63));
    let packed = (u64::from(exponent - 1) << dst.man) + kept;
    packed.min(dst.infinity())
}

/// `value / 2^count` to the nearest integer, ties to even.
fn round_shift(value: u64, count: u32) -> u64 {
    let kept = value >> count;
    let rest = value - (kept << count);
    // An odd number rounds up on a tie: adding its lowest bit to twice the remainder does that. Below
    // and above a tie the added bit changes nothing.
    kept + u64::from(2 * rest + (kept & 1) > 1 << count)
}

/// An integer of any width as a float, rounded once.
pub fn float_of_wide(dst: Format, value: i128) -> u64 {
    let magnitude = value.unsigned_abs();
    let cut = 64u32.saturating_sub(magnitude.leading_zeros());
    // Of the bits that do not fit 64 bits, only whether any is set matters (a sticky bit).
    let rest = magnitude & ((1 << cut) - 1);
    let kept = (magnitude >> cut) as u64 | u64::from(rest != 0);
    pack(kept, dst.bias() + cut, dst) | u64::from(value < 0) << (dst.bits - 1)
}

/// Converts elements one after another; trailing bytes that do not fill an element are ignored.
pub fn convert_bytes(from: DType, to: DType, bytes: &[u8]) -> Vec<u8> {
    let (src, dst) = (Format::from(from), Format::from(to));
    let (read, write) = (from.size() as usize, to.size() as usize);
    let mut out = vec![0; bytes.len() / read * write];
    for (element, place) in bytes.chunks_exact(read).zip(out.chunks_exact_mut(write)) {
        let mut word = [0; 8];
        word[..read].copy_from_slice(element);
        let bits = convert_bits(src, dst, u64::from_le_bytes(word));
        place.copy_from_slice(&bits.to_le_bytes()[..write]);
    }
    out
}

/// 0, 1, 2, ... as elements.
pub fn iota_bytes(dtype: DType, count: u64) -> Vec<u8> {
    let (src, dst) = (Format::from(DType::U64), Format::from(dtype));
    let size = dtype.size() as usize;
    let mut out = vec![0; count as usize * size];
    for (index, place) in (0u64..).zip(out.chunks_exact_mut(size)) {
        place.copy_from_slice(&convert_bits(src, dst, index).to_le_bytes()[..size]);
    }
    out
}
