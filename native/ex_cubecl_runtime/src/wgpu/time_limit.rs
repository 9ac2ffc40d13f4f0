//! Work with a time limit: the run time of a compiler is not known beforehand.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{AcqRel, Acquire},
};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::threads::large_stack::spawn;

use crate::guard::caught;

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const OVERDUE: u8 = 2;

/// Runs work with a time limit. Work cannot be stopped, so at most `most` calls may run past the limit; then no new
/// work starts until one of them has ended.
pub struct Bounded {
    limit: Duration,
    most: usize,
    overdue: AtomicUsize,
}

impl Bounded {
    pub const fn new(limit: Duration, most: usize) -> Self {
        Bounded {
            limit,
            most,
            overdue: AtomicUsize::new(0),
        }
    }

    /// Runs `work` on a thread with a large stack, and waits for it until the time limit.
    pub fn run<T: Send + 'static>(
        &'static self,
        what: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let overdue = self.overdue.load(Acquire);
        if overdue >= self.most {
            return Err(bad(format!(
                "{overdue} kernels that took too long are still being compiled: try again once they have ended"
            )));
        }
        let (answer, answered) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(RUNNING));
        let ours = state.clone();
        let work = move || {
            // The caller may have stopped waiting.
            let _ = answer.send(caught(work));
            if ours.swap(DONE, AcqRel) == OVERDUE {
                self.overdue.fetch_sub(1, AcqRel);
            }
        };
        spawn(Box::new(work))?;
        if let Ok(outcome) = answered.recv_timeout(self.limit) {
            return outcome;
        }
        self.overdue.fetch_add(1, AcqRel);
        if state.swap(OVERDUE, AcqRel) == DONE {
            self.overdue.fetch_sub(1, AcqRel);
        }
        let seconds = self.limit.as_secs();
        Err(bad(format!(
            "{what} was given up after {seconds} s: it is too large, or repeats too much"
        )))
    }
}

fn bad(reason: String) -> Error {
    let reason = reason.into();
    Error::BadKernel { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ex_cubecl_core::threads::large_stack::on_large_stack;

    #[test]
    fn what_takes_too_long_is_given_up_and_not_begun_without_end() {
        static IMPATIENT: Bounded = Bounded::new(Duration::from_millis(1), 2);
        let (gates, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| sync_channel::<()>(0)).unzip();
        for end in ends {
            let given_up = IMPATIENT.run("this one", move || Ok(end.recv().is_ok()));
            let reason = "this one was given up after 0 s: it is too large, or repeats too much";
            assert_eq!(given_up, Err(bad(reason.into())));
        }
        let refused = IMPATIENT.run("that one", || Ok(())).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("2 kernels that took too long")
        );
        drop(gates);
        // Once they have ended, new work can start. Its result is not tested, because it may exceed the time limit.
        while IMPATIENT.overdue.load(Acquire) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn deep_work_has_room_and_a_panic_is_an_error() {
        static PATIENT: Bounded = Bounded::new(Duration::from_secs(600), 1);
        fn depth(left: u64) -> u64 {
            let frame = std::hint::black_box([left; 32]);
            match left {
                0 => frame[0],
                _ => depth(left - 1) + u64::from(frame[31] == left),
            }
        }
        assert_eq!(PATIENT.run("it", || Ok(depth(100_000))), Ok(100_000));
        assert_eq!(on_large_stack(|| Ok(depth(100_000))), Ok(100_000));
        let broken: Result<()> = on_large_stack(|| panic!("broke"));
        assert_eq!(broken, Err(Error::driver("broke")));
        let broken: Result<()> = PATIENT.run("it", || panic!("broke"));
        assert_eq!(broken, Err(Error::driver("broke")));
    }
}
