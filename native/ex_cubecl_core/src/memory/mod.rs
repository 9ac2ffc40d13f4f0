//! The memory of one device: where blocks lie, how much is live, and what each allocation is for.

pub mod allocation_tracker;
pub mod heap;
pub mod meter;
pub mod watcher;
