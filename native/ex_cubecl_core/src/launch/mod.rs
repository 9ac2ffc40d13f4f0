//! Runs of programs on buffers: checks, locks and dispatch.

pub mod kernel;
pub mod matmul;
pub mod source;
mod variant;
