//! Core types as Erlang resources. Their `Drop` runs on a normal scheduler and returns memory without
//! waiting for the device.

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use ex_cubecl_core::driver::PendingRead;
use ex_cubecl_core::{Buffer, Error, Result};
use parking_lot::Mutex;
use rustler::{Env, LocalPid, Monitor, OwnedBinary, Resource, ResourceArc};

use crate::error::NifResult;

/// A buffer handle, as the `ref` of `%ExCubecl.Buffer{}`, and the monitor of its holder if a pool lent
/// it.
pub struct BufferRef(pub Buffer, Mutex<Option<Monitor>>);

#[rustler::resource_impl]
impl Resource for BufferRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.0.abandon();
    }
}

impl BufferRef {
    pub fn new(buffer: Buffer) -> Self {
        BufferRef(buffer, Mutex::new(None))
    }
}

// A panic leaves no partial state behind: core's locks do not poison, and every change of a storage is
// one assignment under its lock.
impl UnwindSafe for BufferRef {}
impl RefUnwindSafe for BufferRef {}

/// A new handle of a buffer.
pub fn handle<'a>(buffer: ex_cubecl_core::Result<Buffer>) -> NifResult<'a, ResourceArc<BufferRef>> {
    Ok(ResourceArc::new(BufferRef::new(buffer?)))
}

/// A handle whose buffer is returned to its pool when `holder` dies. `env` is `None` on threads of the
/// library.
pub fn held(env: Option<Env<'_>>, buffer: Buffer, holder: LocalPid) -> ResourceArc<BufferRef> {
    let handle = ResourceArc::new(BufferRef::new(buffer));
    match handle.monitor(env, &holder) {
        Some(monitor) => *handle.1.lock() = Some(monitor),
        None => handle.0.abandon(),
    }
    handle
}

/// Stops monitoring the holder.
pub fn unwatch(env: Option<Env<'_>>, handle: &ResourceArc<BufferRef>) {
    if let Some(monitor) = handle.1.lock().take() {
        handle.demonitor(env, &monitor);
    }
}

/// Keeps a handle alive during a call, and dereferences to its buffer.
pub struct Held(pub ResourceArc<BufferRef>);

impl Deref for Held {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0.0
    }
}

/// From this size on, an allocation is tried before a binary is made: the VM terminates if it cannot
/// allocate one.
const WORTH_ASKING: usize = 1 << 20;

/// Waits for a read of `count` elements that was started; `Busy` once `patience` is over.
pub fn finish_read(
    buffer: &Buffer,
    count: u64,
    pending: Option<Box<dyn PendingRead>>,
    patience: Option<Duration>,
) -> Result<OwnedBinary> {
    let elements = pending.as_ref().map_or(0, |_| count);
    let len = (elements * buffer.dtype().size()) as usize;
    if len >= WORTH_ASKING && Vec::<u8>::new().try_reserve_exact(len).is_err() {
        return Err(Error::driver(format!(
            "the host has no memory left for the {len} bytes of a read from {}",
            buffer.device_id()
        )));
    }
    let mut bytes = OwnedBinary::new(len);
    buffer.finish_read(pending, bytes.as_mut_slice(), patience)?;
    Ok(bytes)
}
