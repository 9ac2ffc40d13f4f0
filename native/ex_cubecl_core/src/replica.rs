//! One content in several buffers, on as many devices: all of them get it, or none.

use std::thread;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::ledger::Spec;

/// Below this many bytes a thread costs more than it saves.
const WORTH_A_THREAD: usize = 256 << 10;

/// Replaces the content of each target by its data. Everything is uploaded next to what is there, and
/// takes its place only once all of it has arrived. The error comes with the place of its target.
pub fn write_all(writes: &[(&Buffer, &[u8])]) -> std::result::Result<(), (usize, Error)> {
    let uploads = upload_all(writes);
    let mut fresh = Vec::with_capacity(writes.len());
    for (index, upload) in uploads.into_iter().enumerate() {
        fresh.push(upload.map_err(|error| (index, error))?);
    }
    for (index, (target, _)) in writes.iter().enumerate() {
        target.device().driver().map_err(|error| (index, error))?;
    }
    for (index, ((target, _), fresh)) in writes.iter().zip(&fresh).enumerate() {
        target.exchange(fresh).map_err(|error| (index, error))?;
    }
    Ok(())
}

/// Each device has its own queue, and copies to them run beside each other.
fn upload_all(writes: &[(&Buffer, &[u8])]) -> Vec<Result<Buffer>> {
    let bytes: usize = writes.iter().map(|(_, data)| data.len()).sum();
    if bytes < WORTH_A_THREAD || writes.len() < 2 {
        return writes.iter().map(|write| upload(*write)).collect();
    }
    thread::scope(|scope| {
        let threads: Vec<_> = writes
            .iter()
            .map(|write| scope.spawn(|| upload(*write)))
            .collect();
        let wait = |thread: thread::ScopedJoinHandle<'_, Result<Buffer>>| {
            let died = |_| Err(Error::driver("an upload thread died"));
            thread.join().unwrap_or_else(died)
        };
        threads.into_iter().map(wait).collect()
    })
}

fn upload((target, data): (&Buffer, &[u8])) -> Result<Buffer> {
    let spec = Spec {
        label: target.label().clone(),
        ..target.like(target.dtype())
    };
    Buffer::new(target.device().clone(), spec, data)
}
