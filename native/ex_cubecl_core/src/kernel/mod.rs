//! Kernels. `tree` defines the program tree, `launch` runs kernels on buffers, `source` runs WGSL, `matmul` runs a
//! library's matrix multiplication; `runtime/emit.rs` lowers trees to CubeCL's IR.

pub mod launch;
pub mod matmul;
mod programs;
pub(crate) mod rounds;
pub mod source;
pub mod tree;
