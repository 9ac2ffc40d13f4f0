//! One file an Elixir module, one function a stub: decode, one call of core, encode. What may
//! wait for a device runs on a dirty I/O scheduler.

mod arena;
mod buffer;
mod device;
mod kernel;
mod memory;
mod pool;
mod remote;
mod replicated;
mod transfer;
