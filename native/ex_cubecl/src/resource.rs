//! Core types as Erlang resources. Their `Drop` runs on a normal scheduler and hands memory back
//! without waiting for the device.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ex_cubecl_core::Buffer;
use ex_cubecl_core::driver::HostBytes;
use parking_lot::Mutex;
use rustler::{Binary, Env, LocalPid, Monitor, OwnedBinary, Resource, ResourceArc};

use crate::error::Answer;

/// A buffer handle, as the `ref` of `%ExCubecl.Buffer{}`, and the monitor of its holder where a
/// pool lent it.
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

// A panic leaves no half-made state behind: core's locks do not poison, and every change of a
// storage is one assignment under its lock.
impl UnwindSafe for BufferRef {}
impl RefUnwindSafe for BufferRef {}

/// Answers with a new handle.
pub fn handle<'a>(buffer: ex_cubecl_core::Result<Buffer>) -> Answer<'a, ResourceArc<BufferRef>> {
    Ok(ResourceArc::new(BufferRef::new(buffer?)))
}

/// A handle that goes back to its pool when `holder` dies.
pub fn held(env: Env<'_>, buffer: Buffer, holder: LocalPid) -> ResourceArc<BufferRef> {
    let handle = ResourceArc::new(BufferRef::new(buffer));
    match handle.monitor(Some(env), &holder) {
        Some(monitor) => *handle.1.lock() = Some(monitor),
        None => handle.0.abandon(),
    }
    handle
}

/// Its holder is no longer watched.
pub fn unwatch(env: Env<'_>, handle: &ResourceArc<BufferRef>) {
    if let Some(monitor) = handle.1.lock().take() {
        handle.demonitor(Some(env), &monitor);
    }
}

/// From this size on a binary is the mapped memory of the read itself.
const WORTH_PINNING: usize = 1 << 20;
/// Binaries that pin more than this together are copied instead.
const MAX_PINNED: u64 = 256 << 20;
static PINNED: AtomicU64 = AtomicU64::new(0);

/// Mapped memory under a binary, for as long as the binary lives.
struct Pinned(HostBytes);

#[rustler::resource_impl]
impl Resource for Pinned {}

impl UnwindSafe for Pinned {}
impl RefUnwindSafe for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        PINNED.fetch_sub(self.0.len() as u64, Relaxed);
    }
}

/// The bytes of a read as a binary: without a copy where that is worth it.
pub fn binary<'a>(env: Env<'a>, bytes: HostBytes) -> Binary<'a> {
    let len = bytes.len() as u64;
    let fits = |pinned: u64| (pinned + len <= MAX_PINNED).then_some(pinned + len);
    if bytes.len() >= WORTH_PINNING && PINNED.fetch_update(Relaxed, Relaxed, fits).is_ok() {
        let pinned = ResourceArc::new(Pinned(bytes));
        return pinned.make_binary(env, |pinned| &pinned.0);
    }
    Binary::from_owned(OwnedBinary::from_slice(&bytes), env)
}
