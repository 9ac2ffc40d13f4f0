//! Local pids as plain numbers, which core keeps as owners. A local pid is an immediate term: its
//! word is the whole term, in every environment.

#![allow(unsafe_code)]

use std::mem::transmute;

use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, LocalPid, Term};

pub fn key(env: Env<'_>, pid: LocalPid) -> u64 {
    // SAFETY: a term is one word, and this one is an immediate, which refers to no memory.
    let word = unsafe { transmute::<ErlNifTerm, usize>(pid.encode(env).as_c_arg()) };
    word as u64
}

/// The key of the process that calls the NIF.
pub fn caller(env: Env<'_>) -> u64 {
    key(env, env.pid())
}

/// The pid of a key.
pub fn term(env: Env<'_>, key: u64) -> Term<'_> {
    // SAFETY: keys come only from `key`, so the word is an immediate term.
    unsafe { Term::new(env, transmute::<usize, ErlNifTerm>(key as usize)) }
}
