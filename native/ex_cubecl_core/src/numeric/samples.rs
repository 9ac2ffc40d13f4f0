//! Test elements: the edge values of a type, then random ones that are often close to a rounding
//! tie.

use super::Format;
use crate::dtype::DType;

/// Random numbers that are the same on each run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.draw() as u8).collect()
    }
}

/// The bits of elements near every power of two and every exponent, and of `count` random elements.
pub fn samples(dtype: DType, count: usize, random: &mut Random) -> Vec<u64> {
    let format = Format::from(dtype);
    let mut bits = if format.is_float() {
        float_edges(format)
    } else {
        integer_edges(format)
    };
    bits.extend((0..count).map(|_| {
        if format.is_float() {
            random_float(format, random)
        } else {
            random.draw() >> random.below(64)
        }
    }));
    bits.iter().map(|bits| bits & format.mask()).collect()
}

fn integer_edges(format: Format) -> Vec<u64> {
    let near = |shift: u32| (-3..=3).map(move |step| (1u64 << shift).wrapping_add_signed(step));
    let positive: Vec<u64> = (0..format.bits).flat_map(near).collect();
    positive
        .iter()
        .flat_map(|bits| [*bits, bits.wrapping_neg()])
        .collect()
}

/// For each exponent, fractions with a few one bits at either end, with both signs.
fn float_edges(format: Format) -> Vec<u64> {
    let mut bits = Vec::new();
    for exponent in 0..=format.exponent_max() {
        for shift in 0..=format.man {
            let high = u64::from(exponent) << format.man;
            let ones = (1u64 << shift) - 1;
            for fraction in [ones, ones + 1, format.fraction_mask() ^ ones] {
                let magnitude = high + fraction;
                bits.extend([magnitude, magnitude | format.sign_bit()]);
            }
        }
    }
    bits
}

/// A random float. Half of them lie between 2^-32 and 2^72; the last bits of the fraction are often
/// close to a rounding tie.
fn random_float(format: Format, random: &mut Random) -> u64 {
    let mut bits = random.draw();
    if random.below(2) == 0 && format.exp > 5 {
        let exponent = u64::from(format.bias()) - 32 + random.below(104) as u64;
        bits = bits & !format.infinity() | exponent << format.man;
    }
    let place = random.below(format.man as usize);
    match random.below(4) {
        0 => bits & (u64::MAX << place) | (1 << place),
        1 => (bits & (u64::MAX << place) | (1 << place)) + 1,
        2 => (bits & (u64::MAX << place) | (1 << place)) - 1,
        _ => bits,
    }
}
