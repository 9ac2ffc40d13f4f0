//! Device memory over CubeCL: buffers, views, accounting. Does not depend on Erlang.
//!
//! ```text
//! Buffer (a handle) -> Storage -> Block -> Page      memory of the device, one CubeCL handle
//!                         |         '---> Heap       slabs and idle pages
//!                         '-> Reservation -> Meter   live bytes, peak, limit
//!                                            '-> Ledger   who holds what
//! ```

pub mod arena;
pub mod buffer;
pub mod device;
pub mod driver;
pub mod dtype;
pub mod element;
pub mod error;
pub mod fault;
pub mod heap;
pub mod joint;
pub mod kernel;
pub mod ledger;
mod locks;
mod lru;
pub mod meter;
pub mod notifier;
pub mod numeric;
pub mod parts;
pub mod pool;
pub mod replica;
mod runtime;
pub mod shared_pools;
pub mod span;
mod storage;
pub mod worker;

pub use buffer::Buffer;
pub use device::{Device, DeviceId};
pub use dtype::DType;
pub use error::{Error, Result};
pub use ledger::{Label, Spec};
pub use runtime::on_large_stack;
