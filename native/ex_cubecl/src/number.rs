//! Numbers of Erlang as elements.

use ex_cubecl_core::{DType, element};
use rustler::{Atom, Term};

use crate::atoms;
use crate::list_cell;

/// The bits of one number, or of `:nan`, `:infinity`, `:neg_infinity`, as an element.
pub fn bits(term: Term<'_>, dtype: DType) -> Option<u64> {
    if let Ok(value) = term.decode::<i64>() {
        return element::of_int(dtype, value.into());
    }
    if let Ok(value) = term.decode::<u64>() {
        return element::of_int(dtype, value.into());
    }
    if let Some(value) = list_cell::float(term) {
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
