//! Reads: started on the thread of a device that runs its calls, awaited on its other thread.

use std::time::Duration;

use ex_cubecl_core::driver::{PendingRead, Progress};
use ex_cubecl_core::{Buffer, Error, Result};
use rustler::OwnedBinary;

use crate::resource::BufferArg;

/// Starts a read on the calling worker thread of its device; the device's other thread waits for
/// it.
pub fn read(
    buffer: BufferArg,
    offset: u64,
    count: u64,
    progress: Option<Progress>,
    done: impl FnOnce(Result<OwnedBinary>) + Send + 'static,
) {
    let bytes = count.saturating_mul(buffer.dtype().size());
    let permit = buffer
        .device()
        .worker()
        .read_permit(bytes.min(buffer.bytes()));
    let started = buffer.start_read(offset, count, progress.as_ref());
    wait(buffer, count, started, None, move |bytes| {
        done(bytes);
        drop(permit);
    });
}

/// Waits for a started read of `count` elements on the second thread of its device.
pub fn wait(
    buffer: BufferArg,
    count: u64,
    started: Result<Option<Box<dyn PendingRead>>>,
    patience: Option<Duration>,
    done: impl FnOnce(Result<OwnedBinary>) + Send + 'static,
) {
    let pending = match started {
        Ok(pending) => pending,
        Err(error) => return done(Err(error)),
    };
    let device = buffer.device().clone();
    // If no thread can be started, `done` is dropped, which sends an error.
    let _ = device.worker().wait(move || {
        let bytes = finish(&buffer, count, pending, patience);
        drop(buffer);
        done(bytes);
    });
}

/// From this size on, an allocation is tried before a binary is made: the VM terminates if it cannot
/// allocate one.
const MIN_CHECKED_BYTES: usize = 1 << 20;

/// Waits for a started read of `count` elements; `Busy` once `patience` is over.
fn finish(
    buffer: &Buffer,
    count: u64,
    pending: Option<Box<dyn PendingRead>>,
    patience: Option<Duration>,
) -> Result<OwnedBinary> {
    let elements = pending.as_ref().map_or(0, |_| count);
    let len = (elements * buffer.dtype().size()) as usize;
    if len >= MIN_CHECKED_BYTES && Vec::<u8>::new().try_reserve_exact(len).is_err() {
        return Err(Error::driver(format!(
            "the host has no memory left for the {len} bytes of a read from {}",
            buffer.device_id()
        )));
    }
    let mut bytes = OwnedBinary::new(len);
    buffer.finish_read(pending, bytes.as_mut_slice(), patience)?;
    Ok(bytes)
}
