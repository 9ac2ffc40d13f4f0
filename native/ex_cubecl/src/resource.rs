//! Buffers as Erlang resources. Their `Drop` runs on a normal scheduler and returns memory without
//! waiting for the device.

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::Buffer;
use parking_lot::Mutex;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

/// A buffer handle, as the `ref` of `%ExCubecl.Buffer{}`.
pub struct BufferRef {
    buffer: Buffer,
    /// The monitor of the process to which a pool lent the buffer.
    holder: Mutex<Option<Monitor>>,
}

/// The buffer argument of a NIF.
pub type BufferArg = ResourceArc<BufferRef>;

#[rustler::resource_impl]
impl Resource for BufferRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.abandon();
    }
}

impl Deref for BufferRef {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

// A panic leaves no partial state behind: core's locks do not poison, and every change of a storage is
// one assignment under its lock.
impl UnwindSafe for BufferRef {}
impl RefUnwindSafe for BufferRef {}

/// A new handle of a buffer.
pub fn handle(buffer: Buffer) -> BufferArg {
    ResourceArc::new(BufferRef {
        buffer,
        holder: Mutex::new(None),
    })
}

/// A handle whose buffer is returned to its pool when `holder` dies. `env` is `None` on threads of the
/// library.
pub fn lent(env: Option<Env<'_>>, buffer: Buffer, holder: LocalPid) -> BufferArg {
    let handle = handle(buffer);
    match handle.monitor(env, &holder) {
        Some(monitor) => *handle.holder.lock() = Some(monitor),
        None => handle.abandon(),
    }
    handle
}

/// Stops monitoring the holder.
pub fn demonitor_holder(env: Option<Env<'_>>, handle: &BufferArg) {
    if let Some(monitor) = handle.holder.lock().take() {
        handle.demonitor(env, &monitor);
    }
}

/// Keeps a handle alive while jobs on several threads use its buffer.
pub struct SharedBuffer(pub BufferArg);

impl Deref for SharedBuffer {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

/// The buffers of several handles.
pub fn buffers(handles: &[BufferArg]) -> Vec<&Buffer> {
    handles.iter().map(|handle| &***handle).collect()
}
