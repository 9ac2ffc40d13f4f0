//! Lowers kernel programs to CubeCL's IR, which each runtime compiles for its device, and launches them.

mod arithmetic;
mod body;
mod casts;
pub mod compiled;
mod floats;
mod functions;
mod integers;
mod kernel;
pub mod launch;
pub mod support;
pub mod target;
pub mod types;
mod values;
