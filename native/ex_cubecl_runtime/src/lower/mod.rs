//! Lowers kernel programs to CubeCL's IR, which each runtime compiles for its device, and launches them.

mod arithmetic;
mod casts;
pub mod compiled;
mod expressions;
mod floats;
mod functions;
mod integers;
mod kernel;
pub mod launch;
mod locals;
mod planes;
mod remainder;
mod statements;
pub mod support;
pub mod target;
pub mod types;
mod values;
mod vectors;
