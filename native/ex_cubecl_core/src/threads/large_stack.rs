//! Threads with a large stack, for work that recurses in the nesting of its input: checks of programs and compilers.

use crate::error::{Error, Result};
use crate::threads::guard::caught;

/// Only the pages that are touched take memory.
const STACK: usize = 256 << 20;

pub fn builder() -> std::thread::Builder {
    let name = "ex_cubecl compiler".to_string();
    std::thread::Builder::new().name(name).stack_size(STACK)
}

/// Runs `work` on a thread with a large stack, and waits for it.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || caught(work));
        let ended = thread.map_err(Error::driver)?.join();
        ended.unwrap_or_else(|_| Err(Error::driver("a compiling thread ended early")))
    })
}
