//! A device of any CubeCL runtime. Each entry pins CubeCL's stream and catches panics.
//!
//! CubeCL 0.10 reads freed memory when two streams share buffers, and derives the stream from the
//! calling thread; BEAM processes move between threads. So all calls use the same stream. Kernels
//! run as tasks of CubeCL's device thread (`device_thread.rs`), which flushes after them. Every other entry
//! waits until the tasks before it have finished, so that raw commands of a backend on the same
//! queue keep the order of the calls.

pub mod address_space;
pub(crate) mod device_thread;
mod driver;
mod loop_limit;
mod matmul;
mod retire;
mod sources;
pub mod timing;

use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubecl::bytes::Bytes;
use cubecl::client::ComputeClient;
use cubecl::device::Device as CubeDevice;
use cubecl::device_handle::DeviceHandle;
use cubecl::future::block_on;
use cubecl::server::{ComputeServer, Handle};
use ex_cubecl_core::device_id::DeviceId;
use ex_cubecl_core::driver::{Limits, Page, PendingRead, Progress, Region, Run};
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::failpoints::{Stage, point};
use ex_cubecl_core::program::source::Source;

use crate::cube::address_space::Reservation;
use crate::cube::device_thread::{Task, Thread};
use crate::cube::retire::retire;
use crate::cube::timing::{Timestamps, Timings};
use crate::guard::caught;
use crate::kernels::{self, LaunchResult};
use crate::lower::compiled::{Compiled, SlotUse};
use crate::lower::launch::{Bound, Launch};
use crate::lower::target::{STREAM, Target};

/// Bound offsets of windows into a page are multiples of this on every runtime.
pub const WINDOW_ALIGNMENT: u64 = 256;

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

    fn page_data(cube: &Cube<Self>, handle: &Handle) -> Result<Self::PageData>;

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
        cube.awake(|| block_on(cube.client.sync()).map_err(Error::driver))
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

    /// Host memory that the backend keeps for transfers.
    fn staging_bytes(&self) -> u64 {
        0
    }

    fn trim(&self) {}

    fn pointer(&self, _region: Region<'_>) -> Option<u64> {
        None
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
    pub fn new(id: DeviceId, device: &<B::Runtime as cubecl::Runtime>::Device, backend: B) -> Self {
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
        Cube {
            id,
            server: DeviceHandle::new(device.to_id()),
            client,
            limits,
            thread: Thread::of(device.to_id()),
            flush: Arc::new(flush),
            broken,
            compiled: Compiled::new(B::MAX_PROGRAMS),
            has_loop_limit: OnceLock::new(),
            timings,
            send_deferred: backend.deferred_writes(),
            backend,
        }
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

    /// Keeps CubeCL's device thread awake during `call`. Every use of the client and of the server
    /// must be inside such a call: outside, it would wait forever.
    pub fn awake<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let _awake = self.thread.enter();
        call()
    }

    /// `client.empty` would report a failure only at a later read. A call of the server itself, on
    /// its own thread, reports it now and leaves CubeCL's pool as it was.
    fn initialize(&self, bytes: u64) -> Result<Handle> {
        let handle = Handle::new(STREAM, bytes);
        let memory = handle.memory.clone();
        let outcome = self.server.submit_blocking(move |server| {
            caught(|| {
                server.initialize_memory(memory, bytes, STREAM);
                Ok(())
            })
        });
        outcome.map_err(|fault| Error::driver(format!("{fault:?}")))??;
        Ok(handle)
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

    pub(super) fn write_through_server(&self, dst: Region<'_>, data: &[u8]) -> Result<()> {
        let handle = handle_of::<B>(dst.page, dst.offset, data.len() as u64)?;
        let descriptor = handle.copy_descriptor([data.len()].into(), [1].into(), 1);
        let bytes = Bytes::from_elems(data.to_vec());
        self.awake(|| {
            self.server
                .submit(move |server| server.write(vec![(descriptor, bytes)], STREAM));
            // CUDA keeps each upload in host memory until a flush.
            flushed(&self.client)
        })
    }

    pub(super) fn read_through_client(&self, src: Region<'_>) -> Result<Box<dyn PendingRead>> {
        let handle = handle_of::<B>(src.page, src.offset, src.len)?;
        let descriptor = handle.copy_descriptor([src.len as usize].into(), [1].into(), 1);
        let reading = self.awake(|| {
            self.server
                .submit_blocking(move |server| server.read(vec![descriptor], STREAM))
                .map_err(|fault| Error::driver(format!("{fault:?}")))
        })?;
        Ok(Box::new(ClientRead(Box::new(move || {
            let mut all = block_on(reading).map_err(Error::driver)?;
            all.pop().ok_or_else(|| Error::driver("an empty answer"))
        }))))
    }

    /// The window that a kernel binds to access a region: it starts at an aligned offset.
    pub(super) fn window(&self, region: Region<'_>) -> Result<kernels::Window> {
        let start = region.offset / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT;
        let end = (region.offset + region.len)
            .next_multiple_of(4)
            .min(region.page.bytes);
        Ok(kernels::Window {
            handle: handle_of::<B>(region.page, start, end - start)?,
            words: (end - start) / 4,
            offset: region.offset - start,
        })
    }

    /// Launches kernels and waits until they are queued.
    pub(super) fn launch_and_wait(
        &self,
        kernel: impl FnOnce(&Client<B>) -> LaunchResult + Send + 'static,
    ) -> Result<()> {
        self.queue_and_wait(move |target| kernel(&target.client))
    }

    pub(super) fn queue_and_wait(
        &self,
        kernel: impl FnOnce(&Target<B::Runtime>) -> LaunchResult + Send + 'static,
    ) -> Result<()> {
        let (target, (answer, launched)) = (self.target(), sync_channel(1));
        let (timings, flush) = (self.timings.clone(), self.flush.clone());
        let send_deferred = self.send_deferred.clone();
        let run = move || {
            // CubeCL reports a failed launch once, to the next caller that flushes. Flush first, so
            // that failures of earlier launches are not reported to this caller.
            flush();
            let outcome = caught(|| {
                STREAM.executes(|| {
                    send_deferred();
                    timings.before_kernel();
                    kernel(&target).map_err(Error::driver)?;
                    flushed(&target.client).map(|()| timings.after_kernels())
                })
            });
            // The caller waits for this result.
            let _ = answer.send(outcome);
        };
        self.thread.push(Task {
            run: Box::new(run),
            after: self.flush.clone(),
            awaited: true,
        });
        launched.recv().map_err(Error::driver)?
    }

    /// Launches compiled kernels, which are not expected to fail: if a launch fails all the same,
    /// the device counts as lost.
    pub(super) fn later(&self, launches: Vec<Launch>) -> Task {
        let (target, broken) = (self.target(), self.broken.clone());
        let (timings, send_deferred) = (self.timings.clone(), self.send_deferred.clone());
        let run = move || {
            let all = || {
                send_deferred();
                timings.before_kernel();
                launch_all(&target, &launches).map_err(Error::driver)
            };
            let outcome = caught(|| STREAM.executes(all));
            if outcome.is_err() {
                broken.store(true, Release);
            }
        };
        Task {
            run: Box::new(run),
            after: self.flush.clone(),
            awaited: false,
        }
    }

    fn copy_with_kernel(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        let (from, to, len) = (self.window(src)?, self.window(dst)?, src.len);
        self.launch_and_wait(move |client| kernels::copy(client, from, to, len))
    }

    fn target(&self) -> Target<B::Runtime> {
        Target {
            client: self.client.clone(),
            server: self.server.clone(),
        }
    }

    pub(super) fn prepared(&self, run: &Run<'_>) -> Result<Launch> {
        let place = self.compiled.place(run.program)?;
        self.prepared_at(place, run)
    }

    fn prepared_at(&self, place: Arc<SlotUse>, run: &Run<'_>) -> Result<Launch> {
        let arguments = run.arguments.iter();
        // An argument without elements is never accessed: any other region can be bound in its
        // place.
        let stand_in = arguments.clone().find_map(|argument| argument.region);
        let bound = arguments.filter_map(|argument| {
            let region = argument.region.or(stand_in)?;
            Some(self.window(region).map(|window| Bound {
                window,
                dtype: argument.dtype,
                count: argument.count,
            }))
        });
        Ok(Launch {
            buffers: bound.collect::<Result<_>>()?,
            place,
            scalars: run.scalars.to_vec(),
            invocations: run.invocations as u32,
            status: None,
        })
    }

    /// Copies within a page through one window: a buffer that a launch writes to must not be bound
    /// twice.
    fn copy_in_page(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        let start = src.offset.min(dst.offset);
        let end = (src.offset + src.len).max(dst.offset + dst.len);
        let both = Region {
            page: src.page,
            offset: start / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT,
            len: end - start / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT,
            slack: 0,
        };
        let (from, to) = (src.offset - both.offset, dst.offset - both.offset);
        let (window, len) = (self.window(both)?, src.len);
        self.launch_and_wait(move |client| kernels::copy_within(client, window, from, to, len))
    }

    /// Writes bytes one by one, where they do not fill a word: a copy command writes whole words,
    /// and the other bytes of this word belong to other buffers.
    fn write_bytes(&self, dst: Region<'_>, data: &[u8]) -> Result<()> {
        for (at, byte) in data.iter().enumerate() {
            let window = self.window(Region {
                offset: dst.offset + at as u64,
                len: 1,
                ..dst
            })?;
            let byte = u64::from(*byte);
            self.launch_and_wait(move |client| kernels::fill(client, window, 1, byte, 1))?;
        }
        Ok(())
    }
}

pub(super) type Client<B> = ComputeClient<<B as Backend>::Runtime>;

/// Flushes the queued commands; returns an error if a launch failed.
fn flushed<R: cubecl::Runtime>(client: &ComputeClient<R>) -> Result<()> {
    client.flush().map_err(Error::driver)
}

pub(super) fn launch_all<R: cubecl::Runtime>(
    target: &Target<R>,
    launches: &[Launch],
) -> LaunchResult {
    launches.iter().try_for_each(|launch| launch.queue(target))
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

/// A read through CubeCL, which has no way to wait for a limited time.
struct ClientRead(Box<dyn FnOnce() -> Result<Bytes> + Send>);

impl PendingRead for ClientRead {
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        _patience: Option<Duration>,
    ) -> Result<()> {
        caught(|| {
            let bytes = (self.0)()?;
            let part = bytes.get(skip..skip + out.len());
            out.copy_from_slice(part.ok_or_else(|| Error::driver("a read came back too short"))?);
            Ok(())
        })
    }
}
