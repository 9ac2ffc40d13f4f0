//! Implements core's `Driver` once for every CubeCL runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use ex_cubecl_core::driver::{
    Argument, Clock, Driver, GroupLimits, Limits, Page, PendingRead, Product, Progress, Region,
    Run, Timing,
};
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::source::Source;
use ex_cubecl_core::program::tree::{Atomic, Program};

use crate::cube::launches::launch_all;
use crate::cube::matmul::{self, QueuedProduct};
use crate::cube::{Allocation, Backend, Cube, WINDOW_ALIGNMENT, flushed, handle_of, initialized};
use crate::guard::caught;
use crate::hidden::{is_hidden, planes_are_hidden};
use crate::kernels;
use crate::lower::launch::Launch;
use crate::lower::support;
use crate::lower::types::elem;

/// A fill up to this many bytes is written from the host: waking CubeCL's thread takes longer.
const SMALL_FILL: u64 = 16 << 10;

impl<B: Backend> Driver for Cube<B> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn alloc(&self, bytes: u64) -> Result<Page> {
        let bytes = bytes.next_multiple_of(WINDOW_ALIGNMENT);
        let _reservation = self.backend.reserve_address_space(bytes)?;
        let target = self.target();
        let allocate = move || {
            let handle = initialized(&target, bytes)?;
            let data = B::page_data(&target.client, &handle)?;
            Ok(Allocation { handle, data })
        };
        let allocated = self.entry_unordered(|| self.thread.call(allocate));
        allocated
            .map(|allocation| Page {
                bytes,
                raw: Box::new(allocation),
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
            let whole = if padded <= dst.slack {
                rest.len()
            } else {
                rest.len() / 4 * 4
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
            if std::ptr::eq(src.page, dst.page) {
                self.copy_in_page(src, dst)
            } else {
                self.copy_with_kernel(src, dst)
            }
        })
    }

    fn fill(&self, dst: Region<'_>, pattern: u64, size: u64) -> Result<()> {
        let padding = (4 - dst.len % 4) % 4;
        let aligned = dst.offset.is_multiple_of(4) && padding <= dst.slack;
        if aligned && dst.len <= SMALL_FILL {
            let element = &pattern.to_le_bytes()[..size as usize];
            let bytes = element.repeat((dst.len / size) as usize);
            return if self.entry(|| B::write_small(self, dst, &bytes))? {
                Ok(())
            } else {
                self.write(dst, &bytes, None)
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
            let (window, len, size) = (self.window(dst)?, dst.len, size as u32);
            self.launch_and_wait(move |client| kernels::fill(client, window, len, pattern, size))
        })
    }

    fn iota(&self, dst: Region<'_>, dtype: DType) -> Result<()> {
        self.entry(|| {
            let window = self.window(dst)?;
            let count = dst.len / dtype.size();
            self.launch_and_wait(move |client| kernels::iota(client, window, count, dtype))
        })
    }

    fn convert(&self, src: Region<'_>, from: DType, dst: Region<'_>, to: DType) -> Result<()> {
        self.entry(|| {
            let (source, target) = (self.window(src)?, self.window(dst)?);
            let count = src.len / from.size();
            self.launch_and_wait(move |client| {
                kernels::convert(client, source, from, target, to, count)
            })
        })
    }

    fn launch(&self, runs: &[Run<'_>]) -> Result<()> {
        if runs.iter().any(|run| self.is_long(run)) && self.has_loop_limit()? {
            return self.launch_with_loop_check(runs);
        }
        self.entry_unordered(|| {
            let launches = runs.iter().map(|run| self.prepared(run));
            let launches = launches.collect::<Result<Vec<_>>>()?;
            if launches.iter().all(Launch::is_compiled) {
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

    fn try_launch(&self, run: &Run<'_>) -> Result<bool> {
        let Some(place) = self.compiled.find(run.program) else {
            return Ok(false);
        };
        if !place.is_small || self.is_long(run) {
            return Ok(false);
        }
        self.entry_unordered(|| {
            let launch = self.prepared_at(place, run)?;
            Ok(self.thread.try_push(self.later(vec![launch])))
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
            invocations: 0,
        };
        Driver::launch(self, &[nothing])
    }

    fn is_compiled(&self, program: &Arc<Program>) -> bool {
        self.compiled.find(program).is_some()
    }

    fn matmul(&self, product: &Product<'_>) -> Result<bool> {
        let regions = [product.left.region, product.right.region, product.out];
        // A region bound as a whole must start at a multiple of the window alignment.
        let aligned = |region: &Region<'_>| region.offset.is_multiple_of(WINDOW_ALIGNMENT);
        if !regions.iter().all(aligned) || !matmul::supports(&self.client, product.dtype) {
            return Ok(false);
        }
        let [left, right, out] =
            regions.map(|region| handle_of::<B>(region.page, region.offset, region.len));
        let queued = QueuedProduct::new(product, [left?, right?, out?]);
        self.entry_unordered(|| self.launch_and_wait(move |client| queued.queue(client)))
            .map(|()| true)
    }

    fn run_source(&self, source: &Source, buffers: &[Region<'_>], groups: [u32; 3]) -> Result<()> {
        self.run_bound(source, buffers, groups)
    }

    fn group_limits(&self) -> GroupLimits {
        support::group_limits(&self.client)
    }

    fn supports_atomic(&self, op: Atomic, dtype: DType) -> bool {
        support::supports_atomic(&self.client, op, dtype)
    }

    fn supports_planes(&self) -> bool {
        !planes_are_hidden() && B::supports_planes(self)
    }

    fn supports_compute(&self, dtype: DType) -> bool {
        !is_hidden(dtype) && self.client.properties().supports_type(elem(dtype))
    }

    fn supports_convert(&self, dtype: DType) -> bool {
        dtype.size() < 8 || (!is_hidden(DType::U64) && kernels::supports_u64(&self.client))
    }

    fn start_timing(&self) -> Result<u64> {
        self.entry(|| Ok(self.timings.start(B::timestamps(self)?)))
    }

    fn stop_timing(&self, number: u64) -> Result<Timing> {
        self.entry(|| {
            let stopped = self.timings.stop(number);
            let timed = stopped.ok_or_else(|| Error::driver("no such timing"))?;
            let (clock, passed) = match (timed.began, timed.timestamps) {
                (None, Some(_)) => (Clock::Device, Duration::ZERO),
                (None, None) => (Clock::Host, Duration::ZERO),
                (Some(_), Some(timestamps)) => (Clock::Device, timestamps.passed()?),
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
            let client = self.client.clone();
            let usage = self
                .thread
                .call(move || client.memory_usage().map_err(Error::driver))?;
            Ok(usage.bytes_reserved + self.backend.staging_bytes())
        })
    }

    fn release_pages(&self) -> Result<()> {
        self.entry(|| {
            let client = self.client.clone();
            self.thread.call(move || {
                client.memory_cleanup();
                flushed(&client)
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

    fn copy_from_pointer(&self, address: u64, dst: Region<'_>) -> Result<()> {
        let target = self.entry(|| Ok(self.backend.pointer(dst)))?;
        let target = target.ok_or(Error::Unsupported {
            operation: "copy_from_pointer",
            device: self.id,
        })?;
        // The copy is not in the queue of this device.
        self.sync()?;
        self.entry(|| B::copy_addresses(self, address, target, dst.len))
    }

    fn is_lost(&self) -> bool {
        self.backend.is_lost() || self.broken.load(Acquire) || self.thread.is_abandoned()
    }

    fn lose(&self) {
        self.backend.lose();
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
