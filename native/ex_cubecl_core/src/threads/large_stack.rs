//! Threads with a large stack, for work that recurses in the nesting of its input: checks of programs and compilers.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

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
        joined(thread.map_err(Error::driver)?)
    })
}

/// Dropped by the work of `on_watched_stack` at the end of its watched part.
pub struct Watch(#[allow(dead_code)] SyncSender<()>);

/// As `on_large_stack`, but calls `overdue` if the work has not dropped its argument after `limit`, and goes on waiting:
/// a thread cannot be stopped.
pub fn on_watched_stack<T: Send>(
    limit: Duration,
    overdue: impl FnOnce(),
    work: impl FnOnce(Watch) -> Result<T> + Send,
) -> Result<T> {
    let (watch, ended) = sync_channel(0);
    std::thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || caught(|| work(Watch(watch))));
        let thread = thread.map_err(Error::driver)?;
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            overdue();
        }
        joined(thread)
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let ended = thread.join();
    ended.unwrap_or_else(|_| Err(Error::driver("a compiling thread ended early")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn work_that_exceeds_its_limit_is_reported_while_it_runs() {
        let (open, gate) = sync_channel::<()>(1);
        let overdue = || open.send(()).unwrap();
        let result = on_watched_stack(Duration::from_millis(1), overdue, move |watch| {
            gate.recv().unwrap();
            drop(watch);
            Ok(7)
        });
        assert_eq!(result, Ok(7));
    }

    #[test]
    fn only_the_watched_part_counts() {
        let (open, gate) = sync_channel::<()>(1);
        let reported = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let work = move |watch| {
                drop(watch);
                gate.recv().map_err(Error::driver)
            };
            let call = || on_watched_stack(NEVER, || reported.store(true, Relaxed), work);
            let call = scope.spawn(call);
            open.send(()).unwrap();
            assert_eq!(call.join().unwrap(), Ok(()));
        });
        let broken: Result<()> = on_watched_stack(NEVER, || (), |_| panic!("broke"));
        assert_eq!(broken, Err(Error::driver("broke")));
        assert!(!reported.load(Relaxed));
    }
}
