//! Kernels that come as trees. `tree` says what they are, `launch` runs them on buffers;
//! `runtime/emit.rs` turns them into CubeCL's IR.

pub mod launch;
pub mod tree;
