//! Decompositions of matrices and systems of equations in host memory, calculated with 64-bit floats. A matrix is a slice, row after row.

mod batch;
mod cholesky;
mod eigh;
mod elements;
mod lu;
mod operation;
mod problem;
mod qr;
mod reflector;
mod svd;
#[cfg(test)]
mod tests;
mod triangular;
mod vectors;

pub use batch::{Batch, Matrices, Outcome};
pub use operation::Operation;
pub use problem::Problem;
