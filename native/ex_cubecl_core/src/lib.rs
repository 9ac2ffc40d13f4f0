//! Device memory and kernels: buffers, pools, arenas, accounting, kernel programs and their checks. Knows neither
//! Erlang nor a GPU API: a runtime implements [`driver::Driver`] and [`driver::Opener`].
//!
//! ```text
//! launch, transfer, replicas, registry
//!   -> allocators (pools, arenas)
//!     -> buffer -> storage -> device -> memory (heap, meter, allocation tracker)
//!                                |---> threads
//!                                '---> driver -> program -> dtype
//! ```

pub mod allocators;
pub mod buffer;
pub mod device;
pub mod device_id;
pub mod driver;
pub mod dtype;
pub mod element;
pub mod error;
pub mod failpoints;
pub mod launch;
pub mod linear;
mod locks;
pub mod memory;
pub mod numeric;
pub mod program;
pub mod registry;
pub mod replicas;
pub mod span;
mod storage;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod transfer;

pub use buffer::Buffer;
pub use device::Device;
pub use device_id::DeviceId;
pub use dtype::DType;
pub use error::{Error, Result};
pub use memory::allocation_tracker::{Label, Spec};
