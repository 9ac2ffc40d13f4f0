//! Lists to bytes and back, each in one pass.

use ex_cubecl_core::{DType, element};
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;
use crate::cell;
use crate::error::{Answer, Fault};

/// The largest number of rows, on all levels together, that `to_list` makes; four times the number of elements if that
/// is more.
const MAX_ROWS: u64 = 1 << 24;

/// The largest number of bytes that is allocated before any element is decoded; more is allocated as they come.
const FIRST_BYTES: u64 = 64 << 20;

/// The bytes of a flat list, or of one nested as `dims`.
pub fn decode<'a>(data: Term<'a>, dtype: DType, dims: &[u64]) -> Answer<'a, Vec<u8>> {
    let expected: u64 = dims.iter().product();
    let bytes = expected.saturating_mul(dtype.size()).min(FIRST_BYTES);
    let mut out = Vec::with_capacity(bytes as usize);
    if dims.len() > 1 && starts_with_list(data) {
        rows(data, dtype, dims, 0, &mut out)?;
        return Ok(out);
    }
    match elements(data, dtype, expected, &mut out)? {
        actual if actual == expected => Ok(out),
        actual => Err(Fault::Length {
            expected,
            actual,
            shape: dims.to_vec(),
        }),
    }
}

/// Whether a list and its nested lists have at most `most` cells. It visits no more cells than that.
pub fn is_short(data: Term<'_>, most: u64) -> bool {
    let (mut lists, mut cells) = (vec![data], 0);
    while let Some(mut rest) = lists.pop() {
        while let Some((head, tail)) = cell::split(rest) {
            cells += 1;
            if cells > most {
                return false;
            }
            if head.is_list() {
                lists.push(head);
            }
            rest = tail;
        }
    }
    true
}

fn length(list: Term<'_>) -> Answer<'_, u64> {
    list.list_length()
        .map(|length| length as u64)
        .map_err(|_| Fault::ImproperList)
}

fn starts_with_list(data: Term<'_>) -> bool {
    cell::split(data).is_some_and(|(first, _)| first.is_list())
}

fn rows<'a>(
    data: Term<'a>,
    dtype: DType,
    dims: &[u64],
    depth: usize,
    out: &mut Vec<u8>,
) -> Answer<'a, ()> {
    if !data.is_list() {
        return Err(Fault::NoRow {
            depth: depth as u64,
            expected: dims[depth],
            value: data,
            shape: dims.to_vec(),
        });
    }
    let expected = dims[depth];
    let actual = match depth + 1 == dims.len() {
        true => elements(data, dtype, expected, out)?,
        false => length(data)?,
    };
    if actual != expected {
        return Err(Fault::Ragged {
            depth: depth as u64,
            expected,
            actual,
            shape: dims.to_vec(),
        });
    }
    let mut rest = data;
    while depth + 1 < dims.len()
        && let Some((row, tail)) = cell::split(rest)
    {
        rows(row, dtype, dims, depth + 1, out)?;
        rest = tail;
    }
    Ok(())
}

/// Appends the elements of a flat list and returns how many there are. Of a list with more than
/// `expected` elements, only that many are decoded.
fn elements<'a>(list: Term<'a>, dtype: DType, expected: u64, out: &mut Vec<u8>) -> Answer<'a, u64> {
    use DType::*;
    let slow = |term: Term<'a>| bits(term, dtype);
    match dtype {
        F32 => each(list, dtype, expected, out, |term| match cell::float(term) {
            Some(value) => Some((value as f32).to_ne_bytes()),
            None => slow(term).map(|bits| (bits as u32).to_ne_bytes()),
        }),
        F64 => each(list, dtype, expected, out, |term| match cell::float(term) {
            Some(value) => Some(value.to_ne_bytes()),
            None => slow(term).map(u64::to_ne_bytes),
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
) -> Answer<'a, u64> {
    let mut rest = list;
    let mut count = 0;
    while let Some((value, tail)) = cell::split(rest) {
        if count == expected {
            return Ok(count + length(rest)?);
        }
        let Some(bytes) = element(value) else {
            let index = (out.len() / N) as u64;
            return Err(Fault::Value {
                index,
                value,
                dtype,
            });
        };
        out.extend_from_slice(&bytes);
        count += 1;
        rest = tail;
    }
    match rest.is_empty_list() {
        true => Ok(count),
        false => Err(Fault::ImproperList),
    }
}

/// The bits of one number, or of `:nan`, `:infinity`, `:neg_infinity`, as an element.
pub fn bits(term: Term<'_>, dtype: DType) -> Option<u64> {
    if let Ok(value) = term.decode::<i64>() {
        return element::of_int(dtype, value.into());
    }
    if let Ok(value) = term.decode::<u64>() {
        return element::of_int(dtype, value.into());
    }
    if let Some(value) = cell::float(term) {
        return element::of_float(dtype, value);
    }
    let atom = term.decode::<Atom>().ok()?;
    let special = [
        (atoms::nan(), f64::NAN),
        (atoms::infinity(), f64::INFINITY),
        (atoms::neg_infinity(), f64::NEG_INFINITY),
    ];
    let found = special.into_iter().find(|(name, _)| *name == atom);
    found.and_then(|(_, value)| element::of_float(dtype, value))
}

/// The elements as a list nested like `dims`, or the element itself if `dims` is empty.
pub fn encode<'a>(env: Env<'a>, bytes: &[u8], dtype: DType, dims: &[u64]) -> Answer<'a, Term<'a>> {
    let expected = dims.iter().fold(1u64, |n, dim| n.saturating_mul(*dim));
    let actual = bytes.len() as u64 / dtype.size();
    // The shape field of a struct can hold anything.
    if expected != actual {
        return Err(Fault::Length {
            expected,
            actual,
            shape: dims.to_vec(),
        });
    }
    check_rows(dims)?;
    Ok(nested(env, bytes, dtype, dims))
}

fn nested<'a>(env: Env<'a>, bytes: &[u8], dtype: DType, dims: &[u64]) -> Term<'a> {
    let Some((&rows, inner)) = dims.split_first() else {
        let element = Term::list_get_cell(flat(env, bytes, dtype));
        return element.map_or_else(|_| env.error_tuple(atoms::not_allocated()), |cell| cell.0);
    };
    if inner.is_empty() {
        return flat(env, bytes, dtype);
    }
    let row_bytes = bytes.len() / rows.max(1) as usize;
    let mut list = Term::list_new_empty(env);
    for row in (0..rows as usize).rev() {
        let part = &bytes[row * row_bytes..(row + 1) * row_bytes];
        list = list.list_prepend(nested(env, part, dtype, inner));
    }
    list
}

/// A shape like `[1_000_000_000, 0]` has no elements, but as a list it would fill the memory. So would
/// `[10_000_000, 1, 1, 1, 1, 1, 1]`, so the rows of all levels are counted.
fn check_rows<'a>(dims: &[u64]) -> Answer<'a, ()> {
    let elements = dims.iter().fold(1u64, |n, dim| n.saturating_mul(*dim));
    let before_zero = dims.iter().take_while(|dim| **dim != 0);
    let levels = before_zero.scan(1u64, |rows, dim| {
        *rows = rows.saturating_mul(*dim);
        Some(*rows)
    });
    let rows = levels.fold(0u64, u64::saturating_add);
    let limit = MAX_ROWS.max(elements.saturating_mul(4));
    match rows > limit {
        true => Err(Fault::ListTooLong {
            requested: rows,
            limit,
        }),
        false => Ok(()),
    }
}

/// The elements as a flat list.
pub fn flat<'a>(env: Env<'a>, bytes: &[u8], dtype: DType) -> Term<'a> {
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
    from_the_end(env, bytes, |bytes| element(bytes).encode(env))
}

fn floats<'a, const N: usize>(
    env: Env<'a>,
    bytes: &[u8],
    element: impl Fn([u8; N]) -> f64,
) -> Term<'a> {
    from_the_end(env, bytes, |bytes| {
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

fn from_the_end<'a, const N: usize>(
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
