//! The conversions of `numeric`, with the same steps, as device code. `W` is `u64` if one of the
//! two formats has 64 bits, else `u32`. Shifts stay below the width of `W`, because a device may do
//! anything for longer ones. Shifts of 64-bit numbers and the index of their highest bit use only
//! operations that every shader language has.

use cubecl::prelude::*;

use super::words::{bits_of, load, store, stride};
use ex_cubecl_core::numeric::Format;

/// One thread per word of the destination, or per 64-bit element. `source` is the source element
/// for the first element of the first word; it may be below zero if that element lies before the
/// destination.
#[cube(launch_unchecked)]
pub fn convert<W: Int>(
    src: &Array<u32>,
    dst: &mut Array<u32>,
    source: u32,
    source_words: u32,
    first: u32,
    threads: u32,
    head: u32,
    tail: u32,
    #[comptime] whole: bool,
    #[comptime] from: Format,
    #[comptime] to: Format,
) {
    for at in range_stepped(ABSOLUTE_POS as u32, threads, stride()) {
        if comptime!(to.bits == 64) {
            let bits = element::<W>(src, source + at, source_words, from);
            store_wide::<W>(dst, first + 2 * at, convert_bits::<W>(bits, from, to));
        } else {
            let lanes = comptime!(32 / to.bits);
            let mut word = 0u32;
            #[unroll]
            for lane in 0..lanes {
                let bits = element::<W>(src, source + at * lanes + lane, source_words, from);
                let bits = u32::cast_from(convert_bits::<W>(bits, from, to));
                word |= bits << (lane * to.bits);
            }
            store(
                dst,
                first + at,
                word,
                bits_of(at, threads, head, tail),
                whole,
            );
        }
    }
}

/// As `convert`, with the indices of the elements as source.
#[cube(launch_unchecked)]
pub fn iota<W: Int>(
    dst: &mut Array<u32>,
    source: u32,
    first: u32,
    threads: u32,
    head: u32,
    tail: u32,
    #[comptime] whole: bool,
    #[comptime] from: Format,
    #[comptime] to: Format,
) {
    for at in range_stepped(ABSOLUTE_POS as u32, threads, stride()) {
        if comptime!(to.bits == 64) {
            let bits = W::cast_from(source + at);
            store_wide::<W>(dst, first + 2 * at, convert_bits::<W>(bits, from, to));
        } else {
            let lanes = comptime!(32 / to.bits);
            let mut word = 0u32;
            #[unroll]
            for lane in 0..lanes {
                let bits = W::cast_from(source + at * lanes + lane);
                let bits = u32::cast_from(convert_bits::<W>(bits, from, to));
                word |= bits << (lane * to.bits);
            }
            store(
                dst,
                first + at,
                word,
                bits_of(at, threads, head, tail),
                whole,
            );
        }
    }
}

#[cube]
fn store_wide<W: Int>(dst: &mut Array<u32>, word: u32, bits: W) {
    dst[word as usize] = u32::cast_from(bits);
    dst[word as usize + 1] = u32::cast_from(bits >> W::new(32));
}

/// The bits of an element, zero-extended to the width of `W`.
#[cube]
fn element<W: Int>(src: &Array<u32>, index: u32, words: u32, #[comptime] from: Format) -> W {
    if comptime!(from.bits == 64) {
        let low = W::cast_from(load(src, 2 * index, words));
        let high = W::cast_from(load(src, 2 * index + 1, words));
        low | (high << W::new(32))
    } else {
        let lanes = comptime!(32 / from.bits);
        let word = load(src, index / lanes, words);
        let mask = comptime!(from.mask() as u32);
        W::cast_from((word >> ((index % lanes) * from.bits)) & mask)
    }
}

/// The width of `W` in bits. `W::BITS` cannot be used: CubeCL expands a kernel once, for a
/// placeholder type.
fn width(from: Format, to: Format) -> u32 {
    from.bits.max(to.bits).max(32)
}

/// See `numeric::convert_bits`.
#[cube]
pub fn convert_bits<W: Int>(bits: W, #[comptime] from: Format, #[comptime] to: Format) -> W {
    if comptime!(from.is_float() && to.is_float()) {
        between_floats::<W>(bits, from, to)
    } else if comptime!(from.is_float()) {
        integer_of_float::<W>(bits, from, to)
    } else if comptime!(to.is_float()) {
        float_of_integer::<W>(bits, from, to)
    } else {
        integer::<W>(bits, from) & constant::<W>(to.mask())
    }
}

#[cube]
fn constant<W: Int>(#[comptime] bits: u64) -> W {
    W::new(comptime!(bits as i64))
}

/// Sign-extended to the width of `W`.
#[cube]
fn integer<W: Int>(bits: W, #[comptime] from: Format) -> W {
    if comptime!(from.is_signed()) {
        let sign = constant::<W>(from.sign_bit());
        (bits ^ sign) - sign
    } else {
        bits
    }
}

#[cube]
fn float_of_integer<W: Int>(bits: W, #[comptime] from: Format, #[comptime] to: Format) -> W {
    let value = integer::<W>(bits, from);
    if comptime!(from.is_signed()) {
        let sign = sign_of::<W>(bits, from);
        let magnitude = negated_if::<W>(sign, value);
        pack::<W>(magnitude, to.bias(), to, comptime!(width(from, to)))
            | (sign << constant::<W>((to.bits - 1) as u64))
    } else {
        pack::<W>(value, to.bias(), to, comptime!(width(from, to)))
    }
}

#[cube]
fn negated_if<W: Int>(sign: W, value: W) -> W {
    select(sign == W::new(0), value, W::new(0) - value)
}

#[cube]
fn sign_of<W: Int>(bits: W, #[comptime] from: Format) -> W {
    bits >> constant::<W>((from.bits - 1) as u64)
}

#[cube]
fn fraction_of<W: Int>(bits: W, #[comptime] from: Format) -> W {
    bits & constant::<W>(from.fraction_mask())
}

#[cube]
fn exponent_of<W: Int>(bits: W, #[comptime] from: Format) -> u32 {
    u32::cast_from(bits >> constant::<W>(from.man as u64)) & comptime!(from.exponent_max())
}

/// Subnormal numbers have exponent one and no leading bit.
#[cube]
fn significand_of<W: Int>(bits: W, exponent: u32, #[comptime] from: Format) -> W {
    let leading = select(exponent == 0, W::new(0), constant::<W>(from.leading_bit()));
    fraction_of::<W>(bits, from) | leading
}

#[cube]
fn integer_of_float<W: Int>(bits: W, #[comptime] from: Format, #[comptime] to: Format) -> W {
    let sign = sign_of::<W>(bits, from);
    let field = exponent_of::<W>(bits, from);
    let exponent = max(field, 1);
    // From this exponent on, the significand is a whole number.
    let whole = comptime!(from.bias() + from.man);
    let left = max(exponent, whole) - whole;
    let right = whole - min(exponent, whole);
    let last = comptime!(width(from, to) - 1);
    let significand = significand_of::<W>(bits, field, from);
    // If the shift would push bits out, the value is too large for any type, unless the significand
    // is zero.
    let top = highest_bit::<W>(significand | W::new(1), comptime!(width(from, to)));
    let lost = (left + top > last) && significand != W::new(0);
    let raised = significand << W::cast_from(min(left, last));
    let magnitude = raised >> W::cast_from(min(right, last));
    let lowest = constant::<W>(to.lowest());
    let positive = sign == W::new(0);
    // The lowest integer is its own negative.
    let bound = select(positive, constant::<W>(to.highest()), lowest);
    let within = select(lost || magnitude > bound, bound, magnitude);
    let finite = negated_if::<W>(sign, within) & constant::<W>(to.mask());
    let special = select(fraction_of::<W>(bits, from) == W::new(0), bound, W::new(0));
    select(field == comptime!(from.exponent_max()), special, finite)
}

#[cube]
fn between_floats<W: Int>(bits: W, #[comptime] from: Format, #[comptime] to: Format) -> W {
    let field = exponent_of::<W>(bits, from);
    let exponent = max(field, 1);
    let significand = significand_of::<W>(bits, field, from);
    let sign = sign_of::<W>(bits, from) << constant::<W>((to.bits - 1) as u64);
    let finite = if comptime!(to.exp > from.exp) {
        let weight = comptime!(to.bias() - from.bias() - from.man);
        pack::<W>(
            significand,
            exponent + weight,
            to,
            comptime!(width(from, to)),
        )
    } else {
        narrow::<W>(significand, exponent, from, to)
    };
    let infinite = constant::<W>(to.infinity()) | sign;
    let is_infinite = fraction_of::<W>(bits, from) == W::new(0);
    let special = select(is_infinite, infinite, constant::<W>(to.nan()));
    select(
        field == comptime!(from.exponent_max()),
        special,
        finite | sign,
    )
}

/// Packs a magnitude whose lowest bit has the biased exponent `weight`.
#[cube]
fn pack<W: Int>(magnitude: W, weight: u32, #[comptime] to: Format, #[comptime] width: u32) -> W {
    let top = highest_bit::<W>(magnitude | W::new(1), width);
    let man = comptime!(to.man);
    let down = max(top, man) - man;
    let up = man - min(top, man);
    let kept = round_shift::<W>(magnitude << W::cast_from(up), down);
    let packed = encode::<W>(weight + top, kept, to);
    select(magnitude == W::new(0), magnitude, packed)
}

/// Packs a significand for a format with no more exponents than its own.
#[cube]
fn narrow<W: Int>(
    significand: W,
    exponent: u32,
    #[comptime] from: Format,
    #[comptime] to: Format,
) -> W {
    let lift = comptime!(to.man.saturating_sub(from.man));
    let cut = comptime!(from.man + lift - to.man);
    let gap = comptime!(from.bias() - to.bias());
    let normal = max(exponent, gap + 1) - gap;
    let lost = gap + 1 - min(exponent, gap + 1);
    let down = min(cut + lost, comptime!(width(from, to) - 1));
    let kept = round_shift::<W>(significand << constant::<W>(lift as u64), down);
    encode::<W>(normal, kept, to)
}

/// The leading bit of `kept` restores the one that is subtracted from the exponent; rounding up to
/// the next power of two carries into the exponent.
#[cube]
fn encode<W: Int>(exponent: u32, kept: W, #[comptime] to: Format) -> W {
    let packed = (W::cast_from(exponent - 1) << constant::<W>(to.man as u64)) + kept;
    let infinity = constant::<W>(to.infinity());
    select(packed > infinity, infinity, packed)
}

/// `value / 2^count` to the nearest integer, ties to even.
#[cube]
fn round_shift<W: Int>(value: W, count: u32) -> W {
    let count = W::cast_from(count);
    let one = W::new(1);
    let kept = value >> count;
    let rest = value - (kept << count);
    // If `kept` is odd, one is added, which rounds up on a tie; away from a tie it changes nothing.
    let doubled = (rest << one) + (kept & one);
    select(doubled > (one << count), kept + one, kept)
}

/// The index of the highest set bit; `value` is not zero.
#[cube]
fn highest_bit<W: Int>(value: W, #[comptime] width: u32) -> u32 {
    if comptime!(width == 64) {
        let high = u32::cast_from(value >> W::new(32));
        let low = u32::cast_from(value);
        select(
            high == 0,
            31 - low.leading_zeros(),
            63 - high.leading_zeros(),
        )
    } else {
        31 - u32::cast_from(value).leading_zeros()
    }
}
