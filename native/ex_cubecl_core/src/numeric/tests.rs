//! Conversions compared with Rust's own arithmetic. `half` is used to round from `f32` only: its
//! `from_f64` drops the low half of the fraction first.

use half::{bf16, f16};

use super::samples::{Random, samples};
use super::*;

/// The value of an element. Floats of every width are exact in an `f64`.
enum Value {
    Integer(i128),
    Float(f64),
}

fn value(dtype: DType, bits: u64) -> Value {
    match dtype {
        DType::F16 => Value::Float(f16::from_bits(bits as u16).to_f64()),
        DType::Bf16 => Value::Float(bf16::from_bits(bits as u16).to_f64()),
        DType::F32 => Value::Float(f32::from_bits(bits as u32).into()),
        DType::F64 => Value::Float(f64::from_bits(bits)),
        DType::S8 => Value::Integer((bits as i8).into()),
        DType::S16 => Value::Integer((bits as i16).into()),
        DType::S32 => Value::Integer((bits as i32).into()),
        DType::S64 => Value::Integer((bits as i64).into()),
        _ => Value::Integer(bits.into()),
    }
}

/// Truncated toward zero, with the last bit set if the result is inexact (round to odd): a second
/// rounding to half the bits then gives the same result as a single rounding.
fn odd_f32(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return near;
    }
    let beyond = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(beyond)) | 1)
}

fn odd_f64(value: i128) -> f64 {
    let near = value as f64;
    if near as i128 == value && near < 2f64.powi(127) {
        return near;
    }
    let beyond = near.abs() >= 2f64.powi(127) || (near as i128).abs() > value.abs();
    f64::from_bits((near.to_bits() - u64::from(beyond)) | 1)
}

fn rounded(dtype: DType, value: f64) -> u64 {
    if value.is_nan() {
        return Format::from(dtype).nan();
    }
    match dtype {
        DType::F16 => f16::from_f32(odd_f32(value)).to_bits().into(),
        DType::Bf16 => bf16::from_f32(odd_f32(value)).to_bits().into(),
        DType::F32 => (value as f32).to_bits().into(),
        _ => value.to_bits(),
    }
}

fn float_of(dtype: DType, value: i128) -> u64 {
    match dtype {
        DType::F32 => (value as f32).to_bits().into(),
        DType::F64 => (value as f64).to_bits(),
        _ => rounded(dtype, odd_f64(value)),
    }
}

fn held(dtype: DType, value: f64) -> u64 {
    let format = Format::from(dtype);
    let (low, high) = if format.is_signed() {
        (
            -1i128 << (format.bits - 1),
            (1i128 << (format.bits - 1)) - 1,
        )
    } else {
        (0, (1i128 << format.bits) - 1)
    };
    // Rust's own cast clamps floats to the range of 128 bits and turns NaN into 0.
    (value as i128).clamp(low, high) as u64 & format.mask()
}

fn expected(from: DType, to: DType, bits: u64) -> u64 {
    let format = Format::from(to);
    match (value(from, bits), format.is_float()) {
        _ if from == to => bits,
        (Value::Integer(value), false) => value as u64 & format.mask(),
        (Value::Integer(value), true) => float_of(to, value),
        (Value::Float(value), false) => held(to, value),
        (Value::Float(value), true) => rounded(to, value),
    }
}

fn check(from: DType, to: DType, elements: &[u64]) {
    for bits in elements {
        let (got, expected) = (
            convert_bits(from.into(), to.into(), *bits),
            expected(from, to, *bits),
        );
        assert_eq!(
            got, expected,
            "{from} {bits:#x} to {to}: {got:#x}, not {expected:#x}"
        );
    }
}

#[test]
fn every_short_element_becomes_what_rust_makes_of_it() {
    for from in DType::all().filter(|dtype| dtype.size() <= 2) {
        let elements: Vec<u64> = (0..1 << (8 * from.size())).collect();
        DType::all().for_each(|to| check(from, to, &elements));
    }
}

#[test]
fn long_elements_become_what_rust_makes_of_them() {
    let mut random = Random(3);
    for from in DType::all().filter(|dtype| dtype.size() > 2) {
        let elements = samples(from, 300_000, &mut random);
        DType::all().for_each(|to| check(from, to, &elements));
    }
}

#[test]
fn wide_integers_are_rounded_once() {
    let mut random = Random(5);
    for _ in 0..300_000 {
        let wide = u128::from(random.draw()) << 64 | u128::from(random.draw());
        let tie = (wide << 64 | 1 << 63) as i128 >> random.below(128);
        for value in [wide as i128 >> random.below(128), tie, tie + 1, tie - 1] {
            for dtype in [DType::F16, DType::Bf16, DType::F32, DType::F64] {
                let (got, expected) = (float_of_wide(dtype.into(), value), float_of(dtype, value));
                assert_eq!(got, expected, "{value} as {dtype}");
            }
        }
    }
    let lowest = u64::from((-2f32.powi(127)).to_bits());
    assert_eq!(float_of_wide(DType::F32.into(), i128::MIN), lowest);
}

#[test]
fn the_cases_of_the_documentation() {
    let cases = [
        (DType::F64, 300.7f64.to_bits(), DType::U8, 255),
        (DType::F64, (-1f64).to_bits(), DType::U8, 0),
        (DType::F64, (-0.9f64).to_bits(), DType::U8, 0),
        (DType::F64, (-1e30f64).to_bits(), DType::S8, 0x80),
        (
            DType::F32,
            3e10f32.to_bits().into(),
            DType::S32,
            0x7FFF_FFFF,
        ),
        (
            DType::F32,
            2f32.powi(64).to_bits().into(),
            DType::U64,
            u64::MAX,
        ),
        (
            DType::F32,
            2f32.powi(63).to_bits().into(),
            DType::S64,
            i64::MAX as u64,
        ),
        (DType::S32, 300, DType::U8, 44),
        (DType::F64, f64::NAN.to_bits(), DType::S32, 0),
        (DType::F64, f64::INFINITY.to_bits(), DType::S16, 0x7FFF),
        (DType::F64, f64::NEG_INFINITY.to_bits(), DType::S16, 0x8000),
        (DType::F64, f64::NEG_INFINITY.to_bits(), DType::U32, 0),
        (DType::F64, 1e10f64.to_bits(), DType::S32, 0x7FFF_FFFF),
        (DType::F64, 1e30f64.to_bits(), DType::S32, 0x7FFF_FFFF),
        (DType::F32, 0xFFC0_0001, DType::F16, 0x7E00),
        (DType::F64, (-0f64).to_bits(), DType::F32, 0x8000_0000),
        (DType::F32, 65_520f32.to_bits().into(), DType::F16, 0x7C00),
        (DType::S8, 0xFF, DType::U64, u64::MAX),
    ];
    for (from, bits, to, expected) in cases {
        let got = convert_bits(from.into(), to.into(), bits);
        assert_eq!(got, expected, "{from} {bits:#x} to {to}");
    }
}

#[test]
fn bytes_are_converted_and_counted() {
    let bytes: Vec<u8> = [1.5f32, -2.0, 3e9]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert_eq!(
        convert_bytes(DType::F32, DType::S8, &bytes),
        [1, 0xFE, 0x7F]
    );
    assert_eq!(iota_bytes(DType::U16, 3), [0, 0, 1, 0, 2, 0]);
    assert!(iota_bytes(DType::F64, 0).is_empty());
}
