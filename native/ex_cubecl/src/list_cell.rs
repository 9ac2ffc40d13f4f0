//! The two NIF API calls that decoding a list makes for each element, without the error values that
//! rustler's own wrappers build and drop for each: they cost as much as the rest.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rustler::Term;
use rustler::sys::{enif_get_double, enif_get_list_cell};

/// Head and tail of a list; `None` at its end, proper or not.
#[inline]
pub fn split(list: Term<'_>) -> Option<(Term<'_>, Term<'_>)> {
    let env = list.get_env();
    let (mut head, mut tail) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the term belongs to its environment; if the call returns one, it has written both
    // variables, with terms of the same environment.
    unsafe {
        match enif_get_list_cell(
            env.as_c_arg(),
            list.as_c_arg(),
            head.as_mut_ptr(),
            tail.as_mut_ptr(),
        ) {
            1 => Some((
                Term::new(env, head.assume_init()),
                Term::new(env, tail.assume_init()),
            )),
            _ => None,
        }
    }
}

/// A float; `None` for any other term, including integers.
#[inline]
pub fn float(term: Term<'_>) -> Option<f64> {
    let mut value = MaybeUninit::uninit();
    // SAFETY: as in `split`.
    unsafe {
        match enif_get_double(
            term.get_env().as_c_arg(),
            term.as_c_arg(),
            value.as_mut_ptr(),
        ) {
            1 => Some(value.assume_init()),
            _ => None,
        }
    }
}

/// Whether a list and its nested lists have at most `max` cells. It visits no more cells than that.
pub fn has_at_most(data: Term<'_>, max: u64) -> bool {
    let (mut lists, mut cells) = (vec![data], 0);
    while let Some(mut rest) = lists.pop() {
        while let Some((head, tail)) = split(rest) {
            cells += 1;
            if cells > max {
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
