//! Implements `Driver` once for every CubeCL runtime. Each entry pins CubeCL's stream and catches
//! panics.
//!
//! CubeCL 0.10 reads freed memory when two streams share buffers, and derives the stream from the
//! calling thread; BEAM processes move between threads. So all calls use the same stream. Kernels
//! run as tasks of CubeCL's device thread (`rest.rs`), which flushes after them. Every other entry
//! waits until the tasks before it have finished, so that raw commands of a backend on the same
//! queue keep the order of the calls.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubecl::bytes::Bytes;
use cubecl::client::ComputeClient;
use cubecl::device::Device as CubeDevice;
use cubecl::device_handle::DeviceHandle;
use cubecl::future::block_on;
use cubecl::server::{ComputeServer, Handle};
use cubecl::stream_id::StreamId;

use super::backend::Backend;
use super::compiled::{Compiled, Place};
use super::emit;
use super::guard::caught;
use super::kernels::{self, Launched};
use super::matmul::Product;
use super::rest::{Task, Thread};
use super::retire::retire;
use super::timing::Timings;
use crate::device::DeviceId;
use crate::driver::{
    Argument, Clock, Driver, Limits, Page, PendingRead, Progress, Region, Run, Timing,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::fault::{Stage, point};
use crate::kernel::source::Source;
use crate::kernel::tree::{Atomic, Group, Program};

/// Bound offsets of windows into a page are multiples of this on every runtime.
pub(super) const WINDOW_ALIGNMENT: u64 = 256;
/// A fill up to this many bytes is written from the host: waking CubeCL's thread takes longer.
const SMALL_FILL: u64 = 16 << 10;
pub(super) const STREAM: StreamId = StreamId { value: 0 };

type Server<B> = <<B as Backend>::Runtime as cubecl::Runtime>::Server;

/// The client and the server that kernels are launched on.
pub struct Target<R: cubecl::Runtime> {
    pub client: ComputeClient<R>,
    pub server: DeviceHandle<R::Server>,
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
    pub(super) stops_loops: OnceLock<bool>,
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
            let flush = || flushed(launched).map(|()| timed.behind());
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
            stops_loops: OnceLock::new(),
            timings,
            send_deferred: backend.deferred_writes(),
            backend,
        }
    }

    /// Runs a call of the driver after all kernels of earlier calls.
    pub(super) fn entry<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.thread.settle();
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
        let handle = part(dst.page, dst.offset, data.len() as u64);
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
        let handle = part(src.page, src.offset, src.len);
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
    pub(super) fn window(&self, region: Region<'_>) -> kernels::Window {
        let start = region.offset / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT;
        let end = (region.offset + region.len)
            .next_multiple_of(4)
            .min(region.page.bytes);
        kernels::Window {
            handle: part(region.page, start, end - start),
            words: (end - start) / 4,
            offset: region.offset - start,
        }
    }

    /// Launches kernels and waits until they are queued.
    pub(super) fn launch_and_wait(
        &self,
        kernel: impl FnOnce(&Client<B>) -> Launched + Send + 'static,
    ) -> Result<()> {
        self.queue_and_wait(move |target| kernel(&target.client))
    }

    pub(super) fn queue_and_wait(
        &self,
        kernel: impl FnOnce(&Target<B::Runtime>) -> Launched + Send + 'static,
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
                    timings.before();
                    kernel(&target).map_err(Error::driver)?;
                    flushed(&target.client).map(|()| timings.behind())
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
    pub(super) fn later(&self, launches: Vec<emit::Launch>) -> Task {
        let (target, broken) = (self.target(), self.broken.clone());
        let (timings, send_deferred) = (self.timings.clone(), self.send_deferred.clone());
        let run = move || {
            let all = || {
                send_deferred();
                timings.before();
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
        let (from, to, len) = (self.window(src), self.window(dst), src.len);
        self.launch_and_wait(move |client| kernels::copy(client, from, to, len))
    }

    fn target(&self) -> Target<B::Runtime> {
        Target {
            client: self.client.clone(),
            server: self.server.clone(),
        }
    }

    pub(super) fn prepared(&self, run: &Run<'_>) -> Result<emit::Launch> {
        let place = self.compiled.place(run.program)?;
        Ok(self.prepared_at(place, run))
    }

    fn prepared_at(&self, place: Arc<Place>, run: &Run<'_>) -> emit::Launch {
        let arguments = run.arguments.iter();
        // An argument without elements is never accessed: any other region can be bound in its
        // place.
        let stand_in = arguments.clone().find_map(|argument| argument.region);
        let bound = arguments.filter_map(|argument| {
            Some(emit::Bound {
                window: self.window(argument.region.or(stand_in)?),
                dtype: argument.dtype,
                count: argument.count,
            })
        });
        emit::Launch {
            buffers: bound.collect(),
            place,
            scalars: run.scalars.to_vec(),
            positions: run.positions as u32,
            status: None,
        }
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
        let (window, len) = (self.window(both), src.len);
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
            });
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
    launches: &[emit::Launch],
) -> Launched {
    launches.iter().try_for_each(|launch| launch.queue(target))
}

/// A range of a page as a CubeCL handle, which takes the number of bytes cut off at the end.
fn part(page: &Page, offset: u64, len: u64) -> Handle {
    let handle = page.handle.clone().offset_start(offset);
    handle.offset_end(page.bytes - offset - len)
}

impl<B: Backend> Driver for Cube<B> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn alloc(&self, bytes: u64) -> Result<Page> {
        let bytes = bytes.next_multiple_of(WINDOW_ALIGNMENT);
        let _room = self.backend.check_room(bytes)?;
        self.entry_unordered(|| {
            self.awake(|| {
                let handle = self.initialize(bytes)?;
                let raw = B::adopt(self, &handle)?;
                Ok(Page { handle, bytes, raw })
            })
        })
        .map_err(|error| self.out_of_memory(error, bytes))
    }

    fn share(&self, page: &Page) -> Result<()> {
        self.entry(|| B::share(self, page))
    }

    fn write(&self, dst: Region<'_>, data: &[u8], progress: Option<&Progress>) -> Result<()> {
        self.entry(|| {
            let head = ((4 - dst.offset % 4) % 4).min(dst.len) as usize;
            let (head, rest) = data.split_at(head);
            let padded = (4 - rest.len() as u64 % 4) % 4;
            let whole = match padded <= dst.slack {
                true => rest.len(),
                false => rest.len() / 4 * 4,
            };
            let (middle, tail) = rest.split_at(whole);
            let at = dst.offset + head.len() as u64;
            if !middle.is_empty() {
                let len = (middle.len() as u64).next_multiple_of(4);
                B::write(
                    self,
                    Region {
                        offset: at,
                        len,
                        ..dst
                    },
                    middle,
                    progress,
                )?;
            }
            self.write_bytes(dst, head)?;
            self.write_bytes(
                Region {
                    offset: at + whole as u64,
                    ..dst
                },
                tail,
            )
        })
    }

    /// Deferring is safe: a command that uses the memory of `dst` was queued before its block was
    /// freed, and while no launch is pending on the device thread, the runtime has all such
    /// commands.
    fn defer_write(&self, dst: Region<'_>, data: &[u8]) -> bool {
        let padded = (4 - dst.len % 4) % 4;
        dst.offset.is_multiple_of(4)
            && padded <= dst.slack
            && !self.thread.is_busy()
            && B::defer_write(self, dst, data)
    }

    fn read(&self, src: Region<'_>, progress: Option<&Progress>) -> Result<Box<dyn PendingRead>> {
        let offset = src.offset / 4 * 4;
        let end = (src.offset + src.len).next_multiple_of(4);
        let around = Region {
            offset,
            len: end - offset,
            ..src
        };
        let inner = self.entry(|| B::read(self, around, progress))?;
        Ok(Box::new(PartRead {
            inner,
            skip: (src.offset - offset) as usize,
        }))
    }

    fn copy(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        self.entry(|| {
            if B::copy(self, src, dst)? {
                return Ok(());
            }
            match std::ptr::eq(src.page, dst.page) {
                true => self.copy_in_page(src, dst),
                false => self.copy_with_kernel(src, dst),
            }
        })
    }

    fn fill(&self, dst: Region<'_>, pattern: u64, size: u64) -> Result<()> {
        let padding = (4 - dst.len % 4) % 4;
        let aligned = dst.offset.is_multiple_of(4) && padding <= dst.slack;
        if aligned && dst.len <= SMALL_FILL {
            let element = &pattern.to_le_bytes()[..size as usize];
            let bytes = element.repeat((dst.len / size) as usize);
            return match self.entry(|| B::write_small(self, dst, &bytes))? {
                true => Ok(()),
                false => self.write(dst, &bytes, None),
            };
        }
        self.entry(|| {
            let padded = Region {
                len: dst.len + padding,
                ..dst
            };
            if aligned && pattern == 0 && B::clear(self, padded)? {
                return Ok(());
            }
            let (window, len, size) = (self.window(dst), dst.len, size as u32);
            self.launch_and_wait(move |client| kernels::fill(client, window, len, pattern, size))
        })
    }

    fn iota(&self, dst: Region<'_>, dtype: DType) -> Result<()> {
        self.entry(|| {
            let window = self.window(dst);
            let count = dst.len / dtype.size();
            self.launch_and_wait(move |client| kernels::iota(client, window, count, dtype))
        })
    }

    fn convert(&self, src: Region<'_>, from: DType, dst: Region<'_>, to: DType) -> Result<()> {
        self.entry(|| {
            let (source, target) = (self.window(src), self.window(dst));
            let count = src.len / from.size();
            self.launch_and_wait(move |client| {
                kernels::convert(client, source, from, target, to, count)
            })
        })
    }

    fn launch(&self, runs: &[Run<'_>]) -> Result<()> {
        if runs.iter().any(|run| self.is_long(run)) && self.stops_loops()? {
            return self.launch_watched(runs);
        }
        self.entry_unordered(|| {
            let launches = runs.iter().map(|run| self.prepared(run));
            let launches = launches.collect::<Result<Vec<_>>>()?;
            if launches.iter().all(emit::Launch::is_compiled) {
                self.thread.push(self.later(launches));
                return Ok(());
            }
            let launched = self.queue_and_wait(move |target| launch_all(target, &launches));
            if launched.is_err() {
                let programs = runs.iter().map(|run| run.program);
                programs.for_each(|program| self.compiled.forget_failed(program));
            }
            launched
        })
    }

    fn launch_now(&self, run: &Run<'_>) -> Result<bool> {
        let Some(place) = self.compiled.find(run.program) else {
            return Ok(false);
        };
        if !place.is_small || self.is_long(run) {
            return Ok(false);
        }
        self.entry_unordered(|| {
            let launch = self.prepared_at(place, run);
            Ok(self.thread.push_now(self.later(vec![launch])))
        })
    }

    fn compile(&self, program: &Arc<Program>) -> Result<()> {
        let page = self.alloc(WINDOW_ALIGNMENT)?;
        let region = Region {
            page: &page,
            offset: 0,
            len: page.bytes,
            slack: 0,
        };
        let buffers = program.inputs.iter().chain(&program.outputs);
        let nothing = Run {
            program,
            arguments: buffers
                .map(|dtype| Argument {
                    region: Some(region),
                    dtype: *dtype,
                    count: 0,
                })
                .collect(),
            scalars: &vec![0; program.scalars.len()],
            positions: 0,
        };
        Driver::launch(self, &[nothing])
    }

    fn is_compiled(&self, program: &Arc<Program>) -> bool {
        self.compiled.find(program).is_some()
    }

    fn matmul(
        &self,
        left: Region<'_>,
        right: Region<'_>,
        out: Region<'_>,
        [rows, inner, columns]: [u64; 3],
    ) -> Result<bool> {
        let all = [left, right, out];
        // A region bound as a whole must start at a multiple of the window alignment.
        let starts = all.iter().map(|region| region.offset);
        if !starts
            .into_iter()
            .all(|at| at.is_multiple_of(WINDOW_ALIGNMENT))
        {
            return Ok(false);
        }
        let [left, right, out] = all.map(|region| part(region.page, region.offset, region.len));
        let product = Product {
            left,
            right,
            out,
            rows: rows as usize,
            inner: inner as usize,
            columns: columns as usize,
        };
        self.entry_unordered(|| self.launch_and_wait(move |client| product.queue(client)))
            .map(|()| true)
    }

    fn run_source(&self, source: &Source, buffers: &[Region<'_>], groups: [u32; 3]) -> Result<()> {
        self.run_bound(source, buffers, groups)
    }

    fn check_group(&self, group: &Group) -> std::result::Result<(), String> {
        emit::check_group(&self.client, group)
    }

    fn changes(&self, op: Atomic, dtype: DType) -> bool {
        emit::changes(&self.client, op, dtype)
    }

    fn calculates(&self, dtype: DType) -> bool {
        self.client.properties().supports_type(emit::elem(dtype))
    }

    fn computes(&self, dtype: DType) -> bool {
        dtype.size() < 8 || kernels::supports_u64(&self.client)
    }

    fn start_timing(&self) -> Result<u64> {
        self.entry(|| Ok(self.timings.start(B::stamps(self)?)))
    }

    fn stop_timing(&self, number: u64) -> Result<Timing> {
        self.entry(|| {
            let stopped = self.timings.stop(number);
            let timed = stopped.ok_or_else(|| Error::driver("no such timing"))?;
            let (clock, passed) = match (timed.began, timed.stamps) {
                (None, Some(_)) => (Clock::Device, Duration::ZERO),
                (None, None) => (Clock::Host, Duration::ZERO),
                (Some(_), Some(stamps)) => (Clock::Device, stamps.passed()?),
                (Some(began), None) => {
                    B::sync(self)?;
                    (Clock::Host, began.elapsed())
                }
            };
            Ok(Timing { passed, clock })
        })
    }

    fn sync(&self) -> Result<()> {
        self.entry(|| B::sync(self))
    }

    fn reserved(&self) -> Result<u64> {
        self.entry(|| {
            let usage = self.awake(|| self.client.memory_usage().map_err(Error::driver))?;
            Ok(usage.bytes_reserved + self.backend.staging_bytes())
        })
    }

    fn release_pages(&self) -> Result<()> {
        self.entry(|| {
            self.awake(|| {
                self.client.memory_cleanup();
                flushed(&self.client)
            })
        })
    }

    fn trim(&self) -> Result<()> {
        self.sync()?;
        self.entry(|| {
            self.backend.trim();
            Ok(())
        })?;
        self.release_pages()
    }

    fn pointer(&self, region: Region<'_>) -> Result<u64> {
        let address = self.entry(|| Ok(self.backend.pointer(region)))?;
        address.ok_or(Error::Unsupported {
            operation: "pointer",
            device: self.id,
        })
    }

    fn is_lost(&self) -> bool {
        self.backend.is_lost() || self.broken.load(Acquire)
    }

    fn lose(&self) {
        self.backend.lose();
    }
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

/// A read of the whole words around a range of bytes.
struct PartRead {
    inner: Box<dyn PendingRead>,
    skip: usize,
}

impl PendingRead for PartRead {
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        patience: Option<Duration>,
    ) -> Result<()> {
        caught(|| self.inner.wait_into(self.skip + skip, out, patience))
    }
}
