//! Lists to bytes and back, each in one pass.

mod decode;
mod encode;

pub use decode::{bits, decode, has_at_most};
pub use encode::encode;
