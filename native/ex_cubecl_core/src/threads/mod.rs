//! The threads of the library, and panics on them.

pub mod guard;
pub mod large_stack;
pub mod notifier;
pub mod worker;
