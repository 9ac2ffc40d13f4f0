//! Host memory that the device can access, kept between transfers. Uploads go through a bounded
//! ring of mapped chunks; a read is copied to a mapped buffer, and from there to its destination.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wgpu::{BufferUsages, MapMode, SubmissionIndex};

use crate::guard::caught;
use crate::wgpu::gpu::{Gpu, SMALL, write_words};
use ex_cubecl_core::driver::{PendingRead, Progress};
use ex_cubecl_core::error::{Error, Result};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 4 * MIB;
const MAX_CHUNKS: u64 = 8;
/// Size of the pieces of a read. While the host copies one from mapped memory, the device copies the next.
const READ_PIECE: u64 = 8 * MIB;
/// Read buffers kept for the next read, in bytes.
const IDLE_READS: u64 = 128 * MIB;
/// Bytes copied from mapped memory between two checks for a lost device.
const COPIED: usize = 4 * MIB as usize;

/// The staging memory of one device.
#[derive(Default)]
pub struct Staging {
    uploads: Arc<Uploads>,
    reads: Arc<Reads>,
}

#[derive(Default)]
struct Uploads {
    /// Mapped for writing.
    idle: Mutex<Vec<wgpu::Buffer>>,
    made: AtomicU64,
}

#[derive(Default)]
struct Reads {
    idle: Mutex<Vec<wgpu::Buffer>>,
    idle_bytes: AtomicU64,
    /// Bytes of all read buffers, including those in use by a read.
    bytes: AtomicU64,
}

impl Staging {
    pub fn bytes(&self) -> u64 {
        self.uploads.made.load(Relaxed) * CHUNK + self.reads.bytes.load(Relaxed)
    }

    /// Frees the buffers that no transfer uses now.
    pub fn trim(&self) {
        let chunks = std::mem::take(&mut *self.uploads.idle.lock());
        self.uploads.made.fetch_sub(chunks.len() as u64, Relaxed);
        let reads = std::mem::take(&mut *self.reads.idle.lock());
        let bytes = reads.iter().map(wgpu::Buffer::size).sum();
        self.reads.idle_bytes.fetch_sub(bytes, Relaxed);
        self.reads.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Queues an upload of `data` into `target`. The last word is padded with zeros.
    pub fn upload(
        &self,
        gpu: &Gpu,
        target: &wgpu::Buffer,
        offset: u64,
        data: &[u8],
        progress: Option<&Progress>,
    ) -> Result<()> {
        if data.len() <= SMALL {
            write_words(gpu.queue(), target, offset, data);
            gpu.submit(None);
            return Ok(());
        }
        let mut at = offset;
        for piece in data.chunks(CHUNK as usize) {
            let chunk = self.uploads.take(gpu)?;
            self.uploads.send(gpu, chunk, target, at, piece);
            at += piece.len() as u64;
            if let Some(progress) = progress {
                progress(at - offset);
            }
        }
        Ok(())
    }

    /// Queues a copy of `len` bytes of `source` to the host.
    pub fn download(
        &self,
        gpu: &Arc<Gpu>,
        source: &wgpu::Buffer,
        offset: u64,
        len: u64,
        progress: Option<&Progress>,
    ) -> Result<Box<dyn PendingRead>> {
        let starts = (0..len).step_by(READ_PIECE as usize);
        let pieces = starts.map(|start| {
            let end = (start + READ_PIECE).min(len);
            let buffer = self.reads.take(gpu, end - start);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(source, offset + start, &buffer, 0, end - start);
            let index = gpu.submit(Some(encoder.finish()));
            if let Some(progress) = progress.cloned() {
                gpu.queue().on_submitted_work_done(move || progress(end));
            }
            let state = Arc::new(AtomicU8::new(WAITING));
            let signal = state.clone();
            let range = buffer.slice(..end - start);
            range.map_async(MapMode::Read, move |result| {
                signal.store(if result.is_ok() { MAPPED } else { FAILED }, Release);
            });
            ReadPiece {
                slot: Slot {
                    buffer,
                    mapped: false,
                    home: self.reads.clone(),
                },
                range: start..end,
                index,
                state,
            }
        });
        Ok(Box::new(Download {
            gpu: gpu.clone(),
            pieces: pieces.collect(),
        }))
    }
}

impl Uploads {
    /// Returns a mapped chunk: an idle one, a new one, or the next one that the device has finished
    /// with.
    fn take(&self, gpu: &Gpu) -> Result<wgpu::Buffer> {
        loop {
            if let Some(chunk) = self.idle.lock().pop() {
                return Ok(chunk);
            }
            let more = |made: u64| (made < MAX_CHUNKS).then_some(made + 1);
            if self.made.fetch_update(Relaxed, Relaxed, more).is_ok() {
                return Ok(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("upload"),
                    size: CHUNK,
                    usage: BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                }));
            }
            gpu.wait(None, None, || !self.idle.lock().is_empty())?;
        }
    }

    fn send(
        self: &Arc<Self>,
        gpu: &Gpu,
        chunk: wgpu::Buffer,
        target: &wgpu::Buffer,
        at: u64,
        piece: &[u8],
    ) {
        let len = piece.len().next_multiple_of(4);
        let mut view = chunk.slice(..len as u64).get_mapped_range_mut();
        view.slice(..piece.len()).copy_from_slice(piece);
        view.slice(piece.len()..)
            .copy_from_slice(&[0; 3][..len - piece.len()]);
        drop(view);
        chunk.unmap();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&chunk, 0, target, at, len as u64);
        gpu.submit(Some(encoder.finish()));
        let home = self.clone();
        let returned = chunk.clone();
        chunk
            .slice(..)
            .map_async(MapMode::Write, move |result| match result {
                Ok(()) => home.idle.lock().push(returned),
                Err(_) => {
                    home.made.fetch_sub(1, Relaxed);
                }
            });
    }
}

impl Reads {
    fn take(&self, gpu: &Gpu, len: u64) -> wgpu::Buffer {
        let size = if len < MIB {
            len.next_multiple_of(MIB / 16)
        } else {
            len.next_multiple_of(MIB)
        };
        let mut idle = self.idle.lock();
        if let Some(index) = idle.iter().rposition(|buffer| buffer.size() == size) {
            self.idle_bytes.fetch_sub(size, Relaxed);
            return idle.swap_remove(index);
        }
        drop(idle);
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read"),
            size,
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.bytes.fetch_add(size, Relaxed);
        buffer
    }

    fn put_back(&self, buffer: wgpu::Buffer) {
        let size = buffer.size();
        let mut idle = self.idle.lock();
        // The oldest buffers are freed first: sizes that are no longer read must not stay forever.
        while self.idle_bytes.load(Relaxed) + size > IDLE_READS && !idle.is_empty() {
            let old = idle.remove(0).size();
            self.idle_bytes.fetch_sub(old, Relaxed);
            self.bytes.fetch_sub(old, Relaxed);
        }
        if self.idle_bytes.load(Relaxed) + size <= IDLE_READS {
            self.idle_bytes.fetch_add(size, Relaxed);
            idle.push(buffer);
        } else {
            self.bytes.fetch_sub(size, Relaxed);
        }
    }
}

const WAITING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// A read buffer in use. A mapped buffer returns to `Reads` for reuse; one whose transfer was
/// abandoned is freed.
struct Slot {
    buffer: wgpu::Buffer,
    mapped: bool,
    home: Arc<Reads>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // wgpu panics if the device was lost meanwhile, and a panic in a destructor can abort the
        // process.
        let unmapped = self.mapped
            && caught(|| {
                self.buffer.unmap();
                Ok(())
            })
            .is_ok();
        if unmapped {
            self.home.put_back(self.buffer.clone())
        } else {
            self.home.bytes.fetch_sub(self.buffer.size(), Relaxed);
        }
    }
}

/// A range of the bytes of a read, on its way to a read buffer.
struct ReadPiece {
    slot: Slot,
    range: Range<u64>,
    index: SubmissionIndex,
    state: Arc<AtomicU8>,
}

impl ReadPiece {
    /// Waits until the bytes have arrived, and copies those from `skip` on to `out`, which may be shorter.
    fn wait_into(
        mut self,
        gpu: &Gpu,
        skip: u64,
        out: &mut [u8],
        deadline: Option<Instant>,
    ) -> Result<()> {
        let arrived = || self.state.load(Acquire) != WAITING;
        if !gpu.wait(Some(&self.index), deadline, arrived)? {
            return Err(Error::Busy);
        }
        if self.state.load(Acquire) == FAILED {
            return Err(Error::driver("the read could not be mapped"));
        }
        self.slot.mapped = true;
        let len = self.range.end - self.range.start;
        for (at, part) in out.chunks_mut(COPIED).enumerate() {
            let start = skip + (at * COPIED) as u64;
            let end = start + part.len() as u64;
            gpu.while_mapped(|| {
                let words = start / 4 * 4..end.next_multiple_of(4).min(len);
                let view = self.slot.buffer.slice(words).get_mapped_range();
                let skip = (start % 4) as usize;
                part.copy_from_slice(&view[skip..skip + part.len()]);
                Ok(())
            })?;
        }
        Ok(())
    }
}

struct Download {
    gpu: Arc<Gpu>,
    pieces: Vec<ReadPiece>,
}

impl PendingRead for Download {
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        mut out: &mut [u8],
        patience: Option<Duration>,
    ) -> Result<()> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut skip = skip as u64;
        for piece in self.pieces {
            let len = piece.range.end - piece.range.start;
            let wanted = len.saturating_sub(skip).min(out.len() as u64);
            let (now, later) = out.split_at_mut(wanted as usize);
            out = later;
            piece.wait_into(&self.gpu, skip.min(len), now, deadline)?;
            skip = skip.saturating_sub(len);
        }
        Ok(())
    }
}
