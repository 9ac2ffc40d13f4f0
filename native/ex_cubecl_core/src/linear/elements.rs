//! Elements of any type as 64-bit floats, and back.

use crate::dtype::DType;
use crate::element;

pub fn decode(bytes: &[u8], dtype: DType) -> Vec<f64> {
    match dtype {
        DType::F16 => each(bytes, |x| half::f16::from_ne_bytes(x).to_f64()),
        DType::Bf16 => each(bytes, |x| half::bf16::from_ne_bytes(x).to_f64()),
        DType::F32 => each(bytes, |x| f32::from_ne_bytes(x).into()),
        DType::F64 => each(bytes, f64::from_ne_bytes),
        DType::S8 => each(bytes, |x| i8::from_ne_bytes(x).into()),
        DType::S16 => each(bytes, |x| i16::from_ne_bytes(x).into()),
        DType::S32 => each(bytes, |x| i32::from_ne_bytes(x).into()),
        DType::S64 => each(bytes, |x| i64::from_ne_bytes(x) as f64),
        DType::U8 => each(bytes, |x| u8::from_ne_bytes(x).into()),
        DType::U16 => each(bytes, |x| u16::from_ne_bytes(x).into()),
        DType::U32 => each(bytes, |x| u32::from_ne_bytes(x).into()),
        DType::U64 => each(bytes, |x| u64::from_ne_bytes(x) as f64),
    }
}

fn each<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|x| element(*x)).collect()
}

/// Appends numbers as elements of a float type, rounded once.
pub fn encode(values: &[f64], dtype: DType, bytes: &mut Vec<u8>) {
    match dtype {
        DType::F64 => bytes.extend(values.iter().flat_map(|x| x.to_ne_bytes())),
        DType::F32 => bytes.extend(values.iter().flat_map(|x| (*x as f32).to_ne_bytes())),
        _ => {
            let elements = values.iter().filter_map(|x| element::of_float(dtype, *x));
            bytes.extend(elements.flat_map(|bits| (bits as u16).to_ne_bytes()));
        }
    }
}
