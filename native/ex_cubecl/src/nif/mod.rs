//! One file for each Elixir module, one function for each stub: decode, one call of core, encode.
//! Calls that may wait for a device run on a thread of the library.

mod arena;
mod buffer;
mod device;
mod kernel;
mod memory;
mod pool;
mod remote;
mod replicated;
mod transfer;
