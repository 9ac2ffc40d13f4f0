//! A device of any CubeCL runtime. Each entry pins CubeCL's stream and catches panics.
//!
//! CubeCL 0.10 reads freed memory when two streams share buffers, and derives the stream from the
//! calling thread; BEAM processes move between threads. So all calls use the same stream. All calls of CubeCL
//! are tasks of its device thread (`device_thread.rs`), which flushes after kernels. Every other entry
//! waits until the tasks before it have finished, so that raw commands of a backend on the same
//! queue keep the order of the calls.

pub mod address_space;
mod copies;
pub(crate) mod device_thread;
mod driver;
mod launches;
mod loop_limit;
mod matmul;
mod portable_transfers;
mod retire;
mod sources;
pub mod timing;

use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::{Arc, OnceLock};

use cubecl::client::ComputeClient;
use cubecl::device::Device as CubeDevice;
use cubecl::device_handle::DeviceHandle;
use cubecl::future::block_on;
use cubecl::server::{ComputeServer, Handle};
use ex_cubecl_core::device_id::DeviceId;
use ex_cubecl_core::driver::{Limits, Page, PendingRead, Progress, Region};
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::failpoints::{Stage, point};
use ex_cubecl_core::program::source::Source;

use crate::cube::address_space::Reservation;
use crate::cube::device_thread::Thread;
use crate::cube::retire::retire;
use crate::cube::timing::{Timestamps, Timings};
use crate::guard::caught;
use crate::kernels::{self};
use crate::lower::compiled::Compiled;
use crate::lower::support;
use crate::lower::target::{STREAM, Target};

/// Bound offsets of windows into a page are multiples of this on every runtime.
pub const WINDOW_ALIGNMENT: u64 = 256;

/// The end of a window is a multiple of the size of a vector.
const VECTOR_ALIGNMENT: u64 = 16;

type Server<B> = <<B as Backend>::Runtime as cubecl::Runtime>::Server;

/// The operations that differ between runtimes. The default bodies work on each of them.
pub trait Backend: Send + Sync + Sized + 'static {
    type Runtime: cubecl::Runtime;

    /// Whether each opening creates a CubeCL device of its own, which ends with its `Driver`.
    const ENDS: bool = false;

    /// Limit of the programs that the runtime compiles, where CubeCL frees none of them: CUDA
    /// modules stay loaded.
    const MAX_PROGRAMS: Option<usize> = None;

    /// What the backend stores for a page, beside its handle.
    type PageData: Send + Sync + 'static;

    /// On the device thread.
    fn page_data(client: &Client<Self>, handle: &Handle) -> Result<Self::PageData>;

    /// See [`ex_cubecl_core::driver::Driver::share`].
    fn share(_cube: &Cube<Self>, _page: &Page) -> Result<()> {
        Ok(())
    }

    /// Returns an error if the process has no address space for the request. The reservation is dropped
    /// once the memory is allocated.
    fn reserve_address_space(&self, _bytes: u64) -> Result<Option<Reservation>> {
        Ok(None)
    }

    /// Offset and length are multiples of four. Data written in one piece reports no progress.
    fn write(
        cube: &Cube<Self>,
        dst: Region<'_>,
        data: &[u8],
        _progress: Option<&Progress>,
    ) -> Result<()> {
        cube.write_through_server(dst, data)
    }

    /// As `write`, cheaper, for few bytes; `false` if the runtime has no such way.
    fn write_small(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> Result<bool> {
        Ok(false)
    }

    /// Keeps a write on the host until `deferred_writes` is called. It takes no lock that is held during
    /// a call of the runtime or the driver; `false` if it cannot be kept.
    fn defer_write(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> bool {
        false
    }

    /// Returns a function that sends the deferred writes.
    fn deferred_writes(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| ())
    }

    /// Offset and length are multiples of four.
    fn read(
        cube: &Cube<Self>,
        src: Region<'_>,
        _progress: Option<&Progress>,
    ) -> Result<Box<dyn PendingRead>> {
        cube.read_through_client(src)
    }

    /// Copies if the runtime has a better way than a kernel; otherwise returns `false`.
    fn copy(_cube: &Cube<Self>, _src: Region<'_>, _dst: Region<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Zeroes if the runtime has a better way than a kernel; otherwise returns `false`. Offset and
    /// length are multiples of four.
    fn clear(_cube: &Cube<Self>, _dst: Region<'_>) -> Result<bool> {
        Ok(false)
    }

    fn sync(cube: &Cube<Self>) -> Result<()> {
        let client = cube.client.clone();
        let finished = cube.thread.call(move || Ok(client.sync()))?;
        block_on(finished).map_err(Error::driver)
    }

    /// Runs a source. Regions start at multiples of `WINDOW_ALIGNMENT` and are whole words long.
    fn run_source(
        cube: &Cube<Self>,
        _source: &Source,
        _buffers: &[Region<'_>],
        _groups: [u32; 3],
    ) -> Result<()> {
        Err(Error::Unsupported {
            operation: "kernels in WGSL",
            device: cube.id,
        })
    }

    /// Timestamps of the device's clock, if it has one.
    fn timestamps(_cube: &Cube<Self>) -> Result<Option<Arc<dyn Timestamps>>> {
        Ok(None)
    }

    fn supports_planes(cube: &Cube<Self>) -> bool {
        support::supports_planes(&cube.client)
    }

    /// Host memory that the backend keeps for transfers.
    fn staging_bytes(&self) -> u64 {
        0
    }

    fn trim(&self) {}

    fn pointer(&self, _region: Region<'_>) -> Option<u64> {
        None
    }

    /// Copies `bytes` between two addresses of the device, after all queued work. Only called where
    /// `pointer` gives addresses.
    fn copy_addresses(cube: &Cube<Self>, _source: u64, _target: u64, _bytes: u64) -> Result<()> {
        Err(Error::Unsupported {
            operation: "copy_from_pointer",
            device: cube.id,
        })
    }

    fn is_lost(&self) -> bool;

    fn lose(&self);
}

/// A CubeCL client with its backend.
pub struct Cube<B: Backend> {
    pub id: DeviceId,
    pub client: ComputeClient<B::Runtime>,
    server: DeviceHandle<Server<B>>,
    limits: Limits,
    pub(super) thread: Thread,
    /// Flushes the launched kernels, and sets `broken` if any launch failed.
    flush: Arc<dyn Fn() + Send + Sync>,
    /// A kernel that no caller awaited was not launched, so the content of every buffer may be
    /// wrong.
    broken: Arc<AtomicBool>,
    /// Marks the device as lost, and lets all callers go that wait for its thread.
    pub(super) overdue: Arc<dyn Fn() + Send + Sync>,
    compiled: Compiled,
    pub(super) has_loop_limit: OnceLock<bool>,
    pub(super) timings: Arc<Timings>,
    /// Sends the deferred writes, before any command uses their memory.
    send_deferred: Arc<dyn Fn() + Send + Sync>,
    pub backend: B,
}

impl<B: Backend> Drop for Cube<B> {
    fn drop(&mut self) {
        if B::ENDS {
            retire(&self.thread, &self.server);
        }
    }
}

impl<B: Backend> Cube<B> {
    /// An error if the thread of the CubeCL device was abandoned during an earlier opening.
    pub fn new(
        id: DeviceId,
        device: &<B::Runtime as cubecl::Runtime>::Device,
        backend: B,
    ) -> Result<Self> {
        let client = STREAM.executes(|| <B::Runtime as cubecl::Runtime>::client(device));
        let memory = &client.properties().memory;
        let limits = Limits {
            max_page: memory.max_page_size.min(i64::MAX as u64) / WINDOW_ALIGNMENT
                * WINDOW_ALIGNMENT,
            alignment: memory.alignment,
        };
        let broken = Arc::new(AtomicBool::new(false));
        let timings: Arc<Timings> = Arc::default();
        let (launched, failed, timed) = (client.clone(), broken.clone(), timings.clone());
        let flush = move || {
            let launched = &launched;
            let flush = || flushed(launched).map(|()| timed.after_kernels());
            if caught(|| STREAM.executes(flush)).is_err() {
                failed.store(true, Release);
            }
        };
        let thread = Thread::of(device.to_id());
        if thread.is_abandoned() {
            return Err(Error::driver(
                "a kernel whose compilation did not end occupies the device: start the VM again",
            ));
        }
        let abandoned = thread.clone();
        Ok(Cube {
            id,
            server: DeviceHandle::new(device.to_id()),
            client,
            limits,
            thread,
            flush: Arc::new(flush),
            broken,
            overdue: Arc::new(move || abandoned.abandon()),
            compiled: Compiled::new(B::MAX_PROGRAMS),
            has_loop_limit: OnceLock::new(),
            timings,
            send_deferred: backend.deferred_writes(),
            backend,
        })
    }

    /// Runs a call of the driver after all kernels of earlier calls.
    pub(super) fn entry<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.thread.wait_idle();
        self.entry_unordered(|| {
            (self.send_deferred)();
            call()
        })
    }

    fn entry_unordered<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        caught(|| {
            point(Stage::Driver);
            STREAM.executes(call)
        })
    }

    fn out_of_memory(&self, error: Error, requested: u64) -> Error {
        let no_room = |message: &str| {
            let text = message.to_lowercase();
            [
                "out of memory",
                "outofmemory",
                "allocate buffer",
                "buffertoobig",
                "not enough memory",
            ]
            .iter()
            .any(|sign| text.contains(sign))
        };
        match error {
            Error::Driver { message } if no_room(&message) => Error::OutOfMemory {
                requested,
                available: None,
                device: self.id,
            },
            other => other,
        }
    }

    /// The window that a kernel binds to access a region: it starts at an aligned offset.
    pub(super) fn window(&self, region: Region<'_>) -> Result<kernels::Window> {
        let start = region.offset / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT;
        let end = (region.offset + region.len)
            .next_multiple_of(VECTOR_ALIGNMENT)
            .min(region.page.bytes);
        Ok(kernels::Window {
            handle: handle_of::<B>(region.page, start, end - start)?,
            words: (end - start) / 4,
            offset: region.offset - start,
        })
    }
}

pub(super) type Client<B> = ComputeClient<<B as Backend>::Runtime>;

/// On the device thread. `client.empty` would report a failure only at a later read. A call of the
/// server itself reports it now and leaves CubeCL's pool as it was.
fn initialized<R: cubecl::Runtime>(target: &Target<R>, bytes: u64) -> Result<Handle> {
    let handle = Handle::new(STREAM, bytes);
    let memory = handle.memory.clone();
    let outcome = target.server.submit_blocking(move |server| {
        caught(|| {
            server.initialize_memory(memory, bytes, STREAM);
            Ok(())
        })
    });
    outcome.map_err(|fault| Error::driver(format!("{fault:?}")))??;
    Ok(handle)
}

/// Flushes the queued commands; returns an error if a launch failed.
fn flushed<R: cubecl::Runtime>(client: &ComputeClient<R>) -> Result<()> {
    client.flush().map_err(Error::driver)
}

/// A page of CubeCL, with the data of a backend.
pub struct Allocation<P> {
    pub handle: Handle,
    pub data: P,
}

/// The allocation of a page of this runtime.
pub fn allocation<B: Backend>(page: &Page) -> Result<&Allocation<B::PageData>> {
    let found = page.raw.downcast_ref();
    found.ok_or_else(|| Error::driver("a page of another runtime"))
}

/// A region as a CubeCL handle, which takes the number of bytes cut off at the end.
pub(super) fn handle_of<B: Backend>(page: &Page, offset: u64, len: u64) -> Result<Handle> {
    let handle = allocation::<B>(page)?.handle.clone().offset_start(offset);
    Ok(handle.offset_end(page.bytes - offset - len))
}
