//! Decodes and encodes values: one file for each kind of value.

mod alloc_options;
mod device;
mod linear;
mod memory;
mod program;
mod wire;

pub use alloc_options::{AllocOptions, spec};
pub use wire::{Dims, ListOf, ShortListOf, Wire, atom, encode_all, map};
