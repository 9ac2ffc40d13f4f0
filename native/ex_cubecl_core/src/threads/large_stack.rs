//! Threads with a large stack, for work that recurses in the nesting of its input: checks of programs and compilers.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::threads::guard::caught;

/// Only the pages that are touched take memory.
const STACK: usize = 256 << 20;

/// Limit of the threads that wait for work.
const MOST_IDLE: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

static IDLE: Mutex<Vec<SyncSender<Work>>> = Mutex::new(Vec::new());

fn builder() -> std::thread::Builder {
    let name = "ex_cubecl compiler".to_string();
    std::thread::Builder::new().name(name).stack_size(STACK)
}

/// Runs `work`, which does not panic, on a thread with a large stack: one that is idle, or a new one. wgpu keeps an entry for every
/// thread that has asked it for errors.
pub fn spawn(work: Work) -> Result<()> {
    let idle = IDLE.lock().pop();
    let work = match idle {
        Some(thread) => match thread.send(work) {
            Ok(()) => return Ok(()),
            Err(ended) => ended.0,
        },
        None => work,
    };
    let run = || {
        let (next, ours) = sync_channel(1);
        let mut work = work;
        loop {
            work();
            if !wait_for_more(&next) {
                return;
            }
            match ours.recv() {
                Ok(more) => work = more,
                Err(_) => return,
            }
        }
    };
    builder().spawn(run).map_err(Error::driver)?;
    Ok(())
}

fn wait_for_more(next: &SyncSender<Work>) -> bool {
    let mut idle = IDLE.lock();
    let room = idle.len() < MOST_IDLE;
    if room {
        idle.push(next.clone());
    }
    room
}

/// Runs `work` on a thread with a large stack, and waits for it.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || caught(work));
        joined(thread.map_err(Error::driver)?)
    })
}

/// As `on_large_stack`, but calls `overdue` if the work has not ended after `limit`, and goes on waiting: a thread cannot be stopped.
pub fn on_watched_stack<T: Send>(
    limit: Duration,
    overdue: impl FnOnce(),
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let (watch, ended) = sync_channel::<()>(0);
    std::thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, || {
            let result = caught(work);
            drop(watch);
            result
        });
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
        let result = on_watched_stack(Duration::from_millis(1), overdue, move || {
            gate.recv().unwrap();
            Ok(7)
        });
        assert_eq!(result, Ok(7));
    }

    #[test]
    fn work_within_its_limit_and_a_panic_are_not_reported() {
        let reported = AtomicBool::new(false);
        let overdue = || reported.store(true, Relaxed);
        assert_eq!(on_watched_stack(NEVER, overdue, || Ok(7)), Ok(7));
        let broken: Result<()> = on_watched_stack(NEVER, overdue, || panic!("broke"));
        assert_eq!(broken, Err(Error::driver("broke")));
        assert!(!reported.load(Relaxed));
    }

    #[test]
    fn threads_are_used_again() {
        let (told, id) = sync_channel(1);
        let mut threads = std::collections::HashSet::new();
        for _ in 0..100 {
            let told = told.clone();
            spawn(Box::new(move || {
                told.send(std::thread::current().id()).unwrap();
            }))
            .unwrap();
            threads.insert(id.recv().unwrap());
            // The thread is idle only after its work has ended.
            while IDLE.lock().is_empty() {
                std::thread::yield_now();
            }
        }
        assert!(threads.len() <= MOST_IDLE);
    }
}
