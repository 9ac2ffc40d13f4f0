//! One file or folder for each Elixir module, one function for each stub: decode, one call of core, encode.
//! Calls that may wait for a device run on a thread of the library. Where `x_try_y` exists, it does on the caller's
//! scheduler what `x_y` does on a thread of the library, and returns `nil` if that would block.

mod arena;
mod buffer;
mod device;
mod kernel;
mod linear;
mod list;
mod memory;
mod pool;
mod remote;
mod replicated;
mod transfer;
