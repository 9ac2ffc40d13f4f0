//! Buffers over memory that is reused: pools and arenas.

pub mod arena;
pub mod per_process_arenas;
pub mod pool;
pub mod shared_pools;
