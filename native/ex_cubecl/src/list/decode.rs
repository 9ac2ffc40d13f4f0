//! Lists to bytes.

use ex_cubecl_core::DType;
use rustler::Term;

use crate::error::{NifError, NifResult};
use crate::list_cell;
use crate::number::bits;

/// The largest number of bytes that is allocated before any element is decoded; more is allocated as they come.
const INITIAL_CAPACITY: u64 = 64 << 20;

/// The bytes of a flat list, or of one nested as `dims`.
pub fn decode<'a>(data: Term<'a>, dtype: DType, dims: &[u64]) -> NifResult<'a, Vec<u8>> {
    let expected: u64 = dims.iter().product();
    let bytes = expected.saturating_mul(dtype.size()).min(INITIAL_CAPACITY);
    let mut out = Vec::with_capacity(bytes as usize);
    if dims.len() > 1 && starts_with_list(data) {
        rows(data, dtype, dims, 0, &mut out)?;
        return Ok(out);
    }
    let actual = elements(data, dtype, expected, &mut out)?;
    if actual == expected {
        Ok(out)
    } else {
        Err(NifError::list_length(expected, actual, dims))
    }
}

fn length(list: Term<'_>) -> NifResult<'_, u64> {
    list.list_length()
        .map(|length| length as u64)
        .map_err(|_| NifError::improper_list())
}

fn starts_with_list(data: Term<'_>) -> bool {
    list_cell::split(data).is_some_and(|(first, _)| first.is_list())
}

fn rows<'a>(
    data: Term<'a>,
    dtype: DType,
    dims: &[u64],
    depth: usize,
    out: &mut Vec<u8>,
) -> NifResult<'a, ()> {
    let (level, expected) = (depth as u64, dims[depth]);
    if !data.is_list() {
        return Err(NifError::not_a_row(level, expected, data, dims));
    }
    let is_innermost = depth + 1 == dims.len();
    let actual = if is_innermost {
        elements(data, dtype, expected, out)?
    } else {
        length(data)?
    };
    if actual != expected {
        return Err(NifError::row_length(level, expected, actual, dims));
    }
    let mut rest = data;
    while !is_innermost && let Some((row, tail)) = list_cell::split(rest) {
        rows(row, dtype, dims, depth + 1, out)?;
        rest = tail;
    }
    Ok(())
}

/// Appends the elements of a flat list and returns how many there are. Of a list with more than
/// `expected` elements, only that many are decoded.
fn elements<'a>(
    list: Term<'a>,
    dtype: DType,
    expected: u64,
    out: &mut Vec<u8>,
) -> NifResult<'a, u64> {
    use DType::*;
    let slow = |term: Term<'a>| bits(term, dtype);
    match dtype {
        F32 => each(list, dtype, expected, out, |term| {
            match list_cell::float(term) {
                Some(value) => Some((value as f32).to_ne_bytes()),
                None => slow(term).map(|bits| (bits as u32).to_ne_bytes()),
            }
        }),
        F64 => each(list, dtype, expected, out, |term| {
            match list_cell::float(term) {
                Some(value) => Some(value.to_ne_bytes()),
                None => slow(term).map(u64::to_ne_bytes),
            }
        }),
        S32 => each(list, dtype, expected, out, |term| {
            let value = term.decode::<i64>().ok()?;
            i32::try_from(value).ok().map(i32::to_ne_bytes)
        }),
        S64 => each(list, dtype, expected, out, |term| {
            term.decode::<i64>().ok().map(i64::to_ne_bytes)
        }),
        U32 => each(list, dtype, expected, out, |term| {
            let value = term.decode::<i64>().ok()?;
            u32::try_from(value).ok().map(u32::to_ne_bytes)
        }),
        U64 => each(list, dtype, expected, out, |term| {
            term.decode::<u64>().ok().map(u64::to_ne_bytes)
        }),
        S8 | U8 => each(list, dtype, expected, out, |term| {
            slow(term).map(|bits| (bits as u8).to_ne_bytes())
        }),
        F16 | Bf16 | S16 | U16 => each(list, dtype, expected, out, |term| {
            slow(term).map(|bits| (bits as u16).to_ne_bytes())
        }),
    }
}

fn each<'a, const N: usize>(
    list: Term<'a>,
    dtype: DType,
    expected: u64,
    out: &mut Vec<u8>,
    element: impl Fn(Term<'a>) -> Option<[u8; N]>,
) -> NifResult<'a, u64> {
    let mut rest = list;
    let mut count = 0;
    while let Some((value, tail)) = list_cell::split(rest) {
        if count == expected {
            return Ok(count + length(rest)?);
        }
        let Some(bytes) = element(value) else {
            let index = (out.len() / N) as u64;
            return Err(NifError::invalid_value(index, value, dtype));
        };
        out.extend_from_slice(&bytes);
        count += 1;
        rest = tail;
    }
    if rest.is_empty_list() {
        Ok(count)
    } else {
        Err(NifError::improper_list())
    }
}
