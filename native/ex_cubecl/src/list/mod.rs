//! Lists to bytes and back, each in one pass.

mod decode;
mod encode;

pub use decode::decode;
pub use encode::encode;
