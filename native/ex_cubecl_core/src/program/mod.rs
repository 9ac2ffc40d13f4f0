//! Kernel programs as data: the typed tree and its checks, and WGSL sources.

pub mod assignments;
mod check;
pub mod interned;
pub mod source;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod trip_count;
mod uniformity;
pub mod vectors;
