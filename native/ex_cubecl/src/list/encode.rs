//! Bytes to lists.

use ex_cubecl_core::DType;
use rustler::{Encoder, Env, Term};

use crate::atoms;
use crate::error::{NifError, NifResult};
use crate::list_cell;

/// The largest number of rows, on all levels together, that `to_list` makes; four times the number of elements if that
/// is more.
const MAX_ROWS: u64 = 1 << 24;

/// The elements as a list nested like `dims`, or the element itself if `dims` is empty.
pub fn encode<'a>(
    env: Env<'a>,
    bytes: &[u8],
    dtype: DType,
    dims: &[u64],
) -> NifResult<'a, Term<'a>> {
    let expected = dims.iter().fold(1u64, |n, dim| n.saturating_mul(*dim));
    let actual = bytes.len() as u64 / dtype.size();
    // The shape field of a struct can hold anything.
    if expected != actual {
        return Err(NifError::list_length(expected, actual, dims));
    }
    check_rows(dims)?;
    Ok(nested(env, bytes, dtype, dims))
}

fn nested<'a>(env: Env<'a>, bytes: &[u8], dtype: DType, dims: &[u64]) -> Term<'a> {
    let Some((&rows, inner)) = dims.split_first() else {
        let elements = flat(env, bytes, dtype);
        return list_cell::split(elements).map_or(elements, |(element, _)| element);
    };
    if inner.is_empty() {
        return flat(env, bytes, dtype);
    }
    let row_bytes = bytes.len() / rows.max(1) as usize;
    let mut list = Term::list_new_empty(env);
    for row in (0..rows as usize).rev() {
        let row = &bytes[row * row_bytes..(row + 1) * row_bytes];
        list = list.list_prepend(nested(env, row, dtype, inner));
    }
    list
}

/// A shape like `[1_000_000_000, 0]` has no elements, but as a list it would fill the memory. So would
/// `[10_000_000, 1, 1, 1, 1, 1, 1]`, so the rows of all levels are counted.
fn check_rows<'a>(dims: &[u64]) -> NifResult<'a, ()> {
    let elements = dims.iter().fold(1u64, |n, dim| n.saturating_mul(*dim));
    let before_zero = dims.iter().take_while(|dim| **dim != 0);
    let levels = before_zero.scan(1u64, |rows, dim| {
        *rows = rows.saturating_mul(*dim);
        Some(*rows)
    });
    let rows = levels.fold(0u64, u64::saturating_add);
    let limit = MAX_ROWS.max(elements.saturating_mul(4));
    if rows > limit {
        return Err(NifError::list_too_long(rows, limit));
    }
    Ok(())
}

/// The elements as a flat list.
fn flat<'a>(env: Env<'a>, bytes: &[u8], dtype: DType) -> Term<'a> {
    use DType::*;
    match dtype {
        F16 => floats(env, bytes, |b| half::f16::from_ne_bytes(b).to_f64()),
        Bf16 => floats(env, bytes, |b| half::bf16::from_ne_bytes(b).to_f64()),
        F32 => floats(env, bytes, |b| f64::from(f32::from_ne_bytes(b))),
        F64 => floats(env, bytes, f64::from_ne_bytes),
        S8 => integers(env, bytes, i8::from_ne_bytes),
        S16 => integers(env, bytes, i16::from_ne_bytes),
        S32 => integers(env, bytes, i32::from_ne_bytes),
        S64 => integers(env, bytes, i64::from_ne_bytes),
        U8 => integers(env, bytes, u8::from_ne_bytes),
        U16 => integers(env, bytes, u16::from_ne_bytes),
        U32 => integers(env, bytes, u32::from_ne_bytes),
        U64 => integers(env, bytes, u64::from_ne_bytes),
    }
}

fn integers<'a, const N: usize, T: Encoder>(
    env: Env<'a>,
    bytes: &[u8],
    element: impl Fn([u8; N]) -> T,
) -> Term<'a> {
    list_of(env, bytes, |bytes| element(bytes).encode(env))
}

fn floats<'a, const N: usize>(
    env: Env<'a>,
    bytes: &[u8],
    element: impl Fn([u8; N]) -> f64,
) -> Term<'a> {
    list_of(env, bytes, |bytes| {
        let value = element(bytes);
        if value.is_finite() {
            return value.encode(env);
        }
        let name = match value {
            value if value.is_nan() => atoms::nan(),
            value if value > 0.0 => atoms::infinity(),
            _ => atoms::neg_infinity(),
        };
        name.to_term(env)
    })
}

fn list_of<'a, const N: usize>(
    env: Env<'a>,
    bytes: &[u8],
    element: impl Fn([u8; N]) -> Term<'a>,
) -> Term<'a> {
    let (chunks, _) = bytes.as_chunks::<N>();
    let empty = Term::list_new_empty(env);
    chunks
        .iter()
        .rev()
        .fold(empty, |list, chunk| list.list_prepend(element(*chunk)))
}
