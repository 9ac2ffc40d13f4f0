//! The same content in several buffers on different devices: a write changes all of them, or none.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::failpoints::{Stage, pause, point};
use crate::locks::Locks;
use crate::memory::allocation_tracker::Spec;
use crate::storage::Content;

/// The error of a call on several targets, with the index of the target that failed.
pub type FailedAt = (usize, Error);

/// Replaces the content of each target with its data. All data is uploaded to new buffers first, and
/// the contents are exchanged only after every upload is done.
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

/// Swaps the content of each target with that of the buffer paired with it, which no other call uses.
/// All targets are locked meanwhile, in a fixed order, so that of two concurrent calls one writes
/// all targets last. Nothing is exchanged unless every pair can be.
pub fn exchange_all(exchanges: &[(&Buffer, &Buffer)]) -> std::result::Result<(), FailedAt> {
    let mut locks = Locks::lock(exchanges.iter().map(|(target, _)| (*target, true)));
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

/// A new buffer like the target that holds `data`, for `exchange_all`.
pub fn upload(target: &Buffer, data: &[u8]) -> Result<Buffer> {
    let spec = Spec {
        label: target.label().clone(),
        ..target.like(target.dtype())
    };
    Buffer::new(target.device().clone(), spec, data)
}

#[cfg(all(test, feature = "testing"))]
#[allow(clippy::unwrap_used)] // also in helpers that are not test functions
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::allocators::pool::Pool;
    use crate::dtype::DType;
    use crate::failpoints::pause_at;
    use crate::testing::host_device;
    use crate::transfer::start_read_all;

    const SIZE: u64 = 100;

    fn replica(value: u8) -> Arc<Buffer> {
        let device = host_device();
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
        let watch = |no_writer: bool| {
            let (watched, seen) = (replicas.clone(), seen.clone());
            pause_at(Stage::Between, move || {
                for buffer in &watched {
                    assert!(buffer.storage().try_write().is_none());
                    let readable = buffer.storage().read_for(Duration::ZERO).is_some();
                    assert_eq!(readable, no_writer);
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
        let started = start_read_all(&replicas.each_ref().map(|buffer| &**buffer));
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
                    // Returns once the sender is dropped.
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
        // The second writer exchanges nothing before the first one has exchanged everything.
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
        // A buffer that is given twice holds the last data.
        let last = [9; SIZE as usize];
        assert_eq!(write_all(&[(&*kept, &data), (&*kept, &last)]), Ok(()));
        assert_eq!(content(&kept), last);
    }
}
