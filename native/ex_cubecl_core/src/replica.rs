//! One content in several buffers, on as many devices: all of them get it, or none.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::fault::{Stage, pause, point};
use crate::ledger::Spec;
use crate::locks::Locks;
use crate::storage::Content;

/// The error of a call on several targets, with the place of its target.
pub type FailedAt = (usize, Error);

/// Replaces the content of each target by its data. Everything is uploaded next to what is there, and
/// takes its place only once all of it has arrived.
pub fn write_all(writes: &[(&Buffer, &[u8])]) -> std::result::Result<(), FailedAt> {
    let uploads = writes
        .iter()
        .map(|(target, data)| upload(target, data))
        .enumerate();
    let fresh = uploads
        .map(|(index, upload)| upload.map_err(|error| (index, error)))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let targets = writes.iter().map(|(target, _)| *target);
    exchange_all(&targets.zip(&fresh).collect::<Vec<_>>())
}

/// Gives each target the content of the buffer beside it, which nobody else has and which gets the old
/// one. All targets are locked meanwhile, in an order of their own, so that any two calls leave the
/// content of one of them in all; and nothing is exchanged unless all can be.
pub fn exchange_all(exchanges: &[(&Buffer, &Buffer)]) -> std::result::Result<(), FailedAt> {
    let mut locks = Locks::wait_for(exchanges.iter().map(|(target, _)| (*target, true)));
    for (index, (target, fresh)) in exchanges.iter().enumerate() {
        let checked = check(&locks, target, fresh);
        checked.map_err(|error| (index, error))?;
    }
    point(Stage::Exchanging);
    for (target, fresh) in exchanges {
        if let Some(content) = locks.content_mut(target) {
            target.storage().exchange_under(content, fresh.storage());
        }
        pause(Stage::Between);
    }
    Ok(())
}

fn check(locks: &Locks<'_>, target: &Buffer, fresh: &Buffer) -> Result<()> {
    target.device().driver()?;
    match locks.content(target)? {
        Content::Gone => Err(Error::Stale),
        _ if target.is_exchangeable(fresh) => Ok(()),
        _ => Err(Error::NotRoot),
    }
}

/// A buffer like the target, with the data, for `exchange_all`.
pub fn upload(target: &Buffer, data: &[u8]) -> Result<Buffer> {
    let spec = Spec {
        label: target.label().clone(),
        ..target.like(target.dtype())
    };
    Buffer::new(target.device().clone(), spec, data)
}

#[cfg(all(test, feature = "faults"))]
#[allow(clippy::unwrap_used)] // also in what is no test function itself
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::device;
    use crate::dtype::DType;
    use crate::fault::pause_at;
    use crate::pool::Pool;

    const SIZE: u64 = 100;

    fn replica(value: u8) -> Arc<Buffer> {
        let device = device::open(device::default_id().unwrap()).unwrap();
        let data = [value; SIZE as usize];
        Arc::new(Buffer::from_bytes(device, DType::U8, &data).unwrap())
    }

    fn content(buffer: &Buffer) -> Vec<u8> {
        buffer.read(0, SIZE).unwrap().to_vec()
    }

    #[test]
    fn all_are_locked_while_they_are_exchanged_and_while_they_are_read() {
        let replicas = [replica(1), replica(1), replica(1)];
        let (seen, passes) = channel();
        let watch = |nobody_writes: bool| {
            let (watched, seen) = (replicas.clone(), seen.clone());
            pause_at(Stage::Between, move || {
                for buffer in &watched {
                    assert!(buffer.storage().try_write().is_none());
                    let readable = buffer.storage().read_for(Duration::ZERO).is_some();
                    assert_eq!(readable, nobody_writes);
                }
                seen.send(()).unwrap();
            });
        };
        let data = [2; SIZE as usize];
        let writes = replicas.each_ref().map(|buffer| (&**buffer, &data[..]));
        watch(false);
        assert_eq!(write_all(&writes), Ok(()));
        assert_eq!(passes.try_iter().count(), 3);
        watch(true);
        let started = Buffer::start_read_all(&replicas.each_ref().map(|buffer| &**buffer));
        assert_eq!(passes.try_iter().count(), 3);
        for (buffer, pending) in replicas.iter().zip(started.unwrap()) {
            let mut bytes = [0; SIZE as usize];
            buffer.finish_read(pending, &mut bytes, None).unwrap();
            assert_eq!(bytes, data);
        }
    }

    #[test]
    fn two_writers_that_pause_between_replicas_leave_one_content() {
        let [one, other] = [replica(0), replica(0)];
        let (here, paused) = channel();
        let writer = |value: u8, buffers: [Arc<Buffer>; 2]| {
            let (resume, wait) = channel::<()>();
            let here = here.clone();
            let thread = thread::spawn(move || {
                pause_at(Stage::Between, move || {
                    here.send(value).unwrap();
                    // Once the other end is gone it waits no longer.
                    let _ = wait.recv();
                });
                let data = [value; SIZE as usize];
                write_all(&buffers.each_ref().map(|buffer| (&**buffer, &data[..])))
            });
            (resume, thread)
        };
        let (first_resume, first) = writer(1, [one.clone(), other.clone()]);
        assert_eq!(paused.recv(), Ok(1));
        let (second_resume, second) = writer(2, [other.clone(), one.clone()]);
        // The second one has nothing in its place while the first one has not all.
        let early = paused.recv_timeout(Duration::from_millis(200));
        drop(first_resume);
        assert_eq!(first.join().unwrap(), Ok(()));
        drop(second_resume);
        assert_eq!(second.join().unwrap(), Ok(()));
        assert_eq!(content(&one), content(&other));
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        assert_eq!(content(&one), [2; SIZE as usize]);
    }

    #[test]
    fn nothing_is_exchanged_unless_all_can_be() {
        let kept = replica(7);
        let pool = Pool::new(kept.device().clone(), (DType::U8, SIZE).into(), 1, None).unwrap();
        let stale = pool.check_out(&Default::default()).unwrap();
        pool.check_in(&stale, true).unwrap();
        let data = [8; SIZE as usize];
        let writes = [(&*kept, &data[..]), (&stale, &data[..])];
        assert_eq!(write_all(&writes), Err((1, Error::Stale)));
        assert_eq!(content(&kept), [7; SIZE as usize]);
        // The same buffer twice has what comes last.
        let last = [9; SIZE as usize];
        assert_eq!(write_all(&[(&*kept, &data), (&*kept, &last)]), Ok(()));
        assert_eq!(content(&kept), last);
    }
}
