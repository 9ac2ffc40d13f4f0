//! Kernels that come as trees. `tree` says what they are, `launch` runs them on buffers, `matmul` those of a library;
//! `runtime/emit.rs` turns them into CubeCL's IR.

pub mod launch;
pub mod matmul;
mod programs;
pub(crate) mod rounds;
pub mod source;
pub mod tree;
