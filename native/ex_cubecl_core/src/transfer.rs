//! Calls that involve several buffers or devices. Each part runs on the threads of its own device, so that a busy
//! device does not delay the others.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::buffer::Buffer;
use crate::driver::{PendingRead, Progress};
use crate::error::{Error, Result};
use crate::failpoints::{Stage, pause};
use crate::locks::Locks;
use crate::threads::worker::MULTI_DEVICE;

type Done<T> = Box<dyn FnOnce(Vec<Result<T>>) + Send>;

struct Gathering<T> {
    outcomes: Vec<Option<Result<T>>>,
    missing: usize,
    done: Option<Done<T>>,
}

/// The slot for one outcome of a gathering. A slot that is dropped without an outcome counts as failed.
pub struct Slot<T> {
    index: usize,
    gathering: Arc<Mutex<Gathering<T>>>,
    filled: bool,
}

/// Makes `count` slots; the thread that fills the last one calls `done` with all outcomes in order.
pub fn gather<T: 'static>(
    count: usize,
    done: impl FnOnce(Vec<Result<T>>) + Send + 'static,
) -> Result<Vec<Slot<T>>> {
    if count == 0 {
        MULTI_DEVICE.run(|| done(Vec::new()))?;
        return Ok(Vec::new());
    }
    let gathering = Arc::new(Mutex::new(Gathering {
        outcomes: (0..count).map(|_| None).collect(),
        missing: count,
        done: Some(Box::new(done)),
    }));
    let slot = |index| Slot {
        index,
        gathering: gathering.clone(),
        filled: false,
    };
    Ok((0..count).map(slot).collect())
}

impl<T> Slot<T> {
    pub fn fill(mut self, outcome: Result<T>) {
        self.put(outcome);
    }

    fn put(&mut self, outcome: Result<T>) {
        self.filled = true;
        let mut gathering = self.gathering.lock();
        gathering.outcomes[self.index] = Some(outcome);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let outcomes = std::mem::take(&mut gathering.outcomes);
        let done = gathering.done.take();
        drop(gathering);
        if let Some(done) = done {
            done(outcomes.into_iter().flatten().collect());
        }
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if !self.filled {
            self.put(Err(Error::driver("the call broke off")));
        }
    }
}

/// Queues copies of several buffers to the host while all of them are locked: no write of another
/// call is queued between the copies.
pub fn start_read_all(buffers: &[&Buffer]) -> Result<Vec<Option<Box<dyn PendingRead>>>> {
    let locks = Locks::lock(buffers.iter().map(|buffer| (*buffer, false)));
    let start = |buffer: &&Buffer| {
        let pending = buffer.start_read_under(locks.content(buffer)?, None);
        pause(Stage::Between);
        pending
    };
    buffers.iter().map(start).collect()
}

/// Copies all elements of `source` to `target` on another device. `done` gets `target` back.
pub fn copy_across<S, T>(
    source: S,
    target: T,
    progress: Option<Progress>,
    done: impl FnOnce(Result<T>) + Send + 'static,
) -> Result<()>
where
    S: Deref<Target = Buffer> + Send + 'static,
    T: Deref<Target = Buffer> + Send + 'static,
{
    let (from, to) = (source.device().clone(), target.device().clone());
    let reads = from.clone();
    from.worker().run(move || {
        let started = source.check_alike(&target).and_then(|()| {
            target.device().driver()?;
            source.start_read(0, source.count(), None)
        });
        let pending = match started {
            Ok(pending) => pending,
            Err(error) => return done(Err(error)),
        };
        let turn = reads.worker().read_permit(source.bytes());
        let wait = move || {
            let mut bytes = vec![0; source.bytes() as usize];
            let read = source.finish_read(pending, &mut bytes, None);
            drop(turn);
            if let Err(error) = read {
                return done(Err(error));
            }
            let write = move || {
                let written = target.write_with_progress(0, &bytes, progress.as_ref());
                done(written.map(|()| target));
            };
            // If no thread can be started, `write` is dropped, and `done` with it.
            let _ = to.worker().run(write);
        };
        let _ = reads.worker().wait(wait);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// The outcomes that `done` gets after `fill` has used the slots.
    fn outcomes(count: usize, fill: impl FnOnce(Vec<Slot<u8>>)) -> Vec<Result<u8>> {
        let (sender, outcomes) = channel();
        fill(gather(count, move |all| sender.send(all).unwrap()).unwrap());
        outcomes.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn outcomes_come_in_the_order_of_their_slots() {
        let backwards = |slots: Vec<Slot<u8>>| {
            for (number, slot) in slots.into_iter().enumerate().rev() {
                slot.fill(Ok(number as u8));
            }
        };
        assert_eq!(outcomes(3, backwards), [Ok(0), Ok(1), Ok(2)]);
    }

    #[test]
    fn nothing_to_wait_for_is_done_at_once_and_a_dropped_slot_has_failed() {
        assert_eq!(outcomes(0, drop), []);
        let broken = || Err(Error::driver("the call broke off"));
        assert_eq!(outcomes(2, drop), [broken(), broken()]);
    }
}
