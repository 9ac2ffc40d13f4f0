//! Core types as Erlang resources. Their `Drop` runs on a normal scheduler and hands memory back
//! without waiting for the device.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ex_cubecl_core::Buffer;
use ex_cubecl_core::driver::HostBytes;
use rustler::{Binary, Env, OwnedBinary, Resource, ResourceArc};

use crate::error::Answer;

/// A buffer handle, as the `ref` of `%ExCubecl.Buffer{}`.
pub struct BufferRef(pub Buffer);

#[rustler::resource_impl]
impl Resource for BufferRef {}

// A panic leaves no half-made state behind: core's locks do not poison, and every change of a
// storage is one assignment under its lock.
impl UnwindSafe for BufferRef {}
impl RefUnwindSafe for BufferRef {}

/// Answers with a new handle.
pub fn handle<'a>(buffer: ex_cubecl_core::Result<Buffer>) -> Answer<'a, ResourceArc<BufferRef>> {
    Ok(ResourceArc::new(BufferRef(buffer?)))
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
