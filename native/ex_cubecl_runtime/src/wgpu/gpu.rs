//! A wgpu device with its queue: submissions, waits, and small writes.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use wgpu::{PollError, PollType, SubmissionIndex};

use crate::wgpu::exit;
use ex_cubecl_core::error::{Error, Result};

/// Writes up to this size go through wgpu's own staging memory.
pub const SMALL: usize = 64 << 10;
/// Small writes that may wait for a submission together.
const MAX_UNSENT: u64 = 64;
/// Limit of deferred writes; further ones are not deferred.
const MAX_DEFERRED: usize = 256;
/// Longest single wait in wgpu, which holds a lock that submissions need meanwhile.
const SLICE: Duration = Duration::from_micros(500);

/// A wgpu device with its queue.
///
/// When wgpu finds a device lost, it frees all buffers of the device at the end of the next poll,
/// including mapped ones. Therefore a lost device is never polled again. The gate keeps
/// submissions, which may find the device lost, from running during a poll. Mapped memory is read
/// only between polls.
pub struct Gpu {
    pub device: wgpu::Device,
    queue: wgpu::Queue,
    pub lost: Arc<AtomicBool>,
    /// The driver computes on the CPU, in this process.
    on_cpu: bool,
    /// The driver has operations on subgroups.
    pub has_subgroups: bool,
    gate: RwLock<()>,
    /// Held during a poll and while mapped memory is read.
    polling: Mutex<()>,
    /// Writes that wgpu holds until the next submission.
    unsent: AtomicU64,
    deferred: Deferred,
}

/// Small writes that BEAM schedulers left here. wgpu's own locks can be held for as long as a
/// kernel runs; the lock of `writes` never is.
#[derive(Default)]
struct Deferred {
    writes: Mutex<Vec<Deferring>>,
    /// Held by the thread that hands the writes to wgpu, so that other threads wait until that is
    /// done.
    sending: Mutex<()>,
}

struct Deferring {
    target: wgpu::Buffer,
    offset: u64,
    data: Vec<u8>,
}

impl Gpu {
    pub fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<AtomicBool>,
        on_cpu: bool,
        has_subgroups: bool,
    ) -> Self {
        Gpu {
            device,
            queue,
            lost,
            on_cpu,
            has_subgroups,
            gate: RwLock::new(()),
            polling: Mutex::new(()),
            unsent: AtomicU64::new(0),
            deferred: Deferred::default(),
        }
    }

    pub fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> SubmissionIndex {
        if self.on_cpu {
            exit::without_destructors();
        }
        let _gate = self.gate.write();
        self.unsent.store(0, Relaxed);
        self.queue.submit(commands)
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Nanoseconds per tick of the device's clock.
    pub fn tick(&self) -> f64 {
        f64::from(self.queue.get_timestamp_period())
    }

    /// Hands a few bytes to wgpu, which copies them at once and sends them with the next
    /// submission. `false` if wgpu holds enough such writes already, or `data` is too large.
    pub fn write_small(&self, target: &wgpu::Buffer, offset: u64, data: &[u8]) -> bool {
        if data.len() > SMALL || self.unsent.fetch_add(1, Relaxed) >= MAX_UNSENT {
            return false;
        }
        write_words(&self.queue, target, offset, data);
        true
    }

    /// Keeps a few bytes for `send_deferred`; `false` if another thread has locked the list, or if
    /// the list is full or `data` too large.
    pub fn defer_write(&self, target: &wgpu::Buffer, offset: u64, data: &[u8]) -> bool {
        let Some(mut writes) = self.deferred.writes.try_lock() else {
            return false;
        };
        let fits = writes.len() < MAX_DEFERRED && data.len() <= SMALL;
        if fits {
            writes.push(Deferring {
                target: target.clone(),
                offset,
                data: data.to_vec(),
            });
        }
        fits
    }

    /// Hands the deferred writes to wgpu, before everything that is submitted from now on.
    pub fn send_deferred(&self) {
        let _sending = self.deferred.sending.lock();
        let writes = std::mem::take(&mut *self.deferred.writes.lock());
        for write in &writes {
            if !self.write_small(&write.target, write.offset, &write.data) {
                self.submit(None);
                write_words(&self.queue, &write.target, write.offset, &write.data);
            }
        }
    }

    /// Polls the device once, which includes one short wait (for `index`, if given).
    fn poll(&self, index: Option<&SubmissionIndex>) -> Result<()> {
        let _gate = self.gate.read();
        let _polling = self.polling.lock();
        self.check()?;
        let slice = PollType::Wait {
            submission_index: index.cloned(),
            timeout: Some(SLICE),
        };
        match self.device.poll(slice) {
            Ok(_) | Err(PollError::Timeout) => Ok(()),
            Err(fault) => Err(Error::driver(fault)),
        }
    }

    /// Reads mapped memory, and prevents polls meanwhile, which could free it.
    pub fn while_mapped<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let _polling = self.polling.lock();
        self.check()?;
        read()
    }

    fn check(&self) -> Result<()> {
        if self.lost.load(Acquire) {
            Err(Error::driver("the device was lost"))
        } else {
            Ok(())
        }
    }

    /// Waits until `done` returns `true`; returns `false` at the deadline. `index` is the
    /// submission that has to finish first.
    pub fn wait(
        &self,
        index: Option<&SubmissionIndex>,
        deadline: Option<Instant>,
        done: impl Fn() -> bool,
    ) -> Result<bool> {
        while !done() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            self.poll(index)?;
            std::thread::yield_now();
        }
        if self.on_cpu {
            exit::without_destructors();
        }
        Ok(true)
    }

    /// Waits until everything that was submitted so far has finished.
    pub fn sync(&self) -> Result<()> {
        let finished = Arc::new(AtomicBool::new(false));
        let index = self.submit(None);
        let signal = finished.clone();
        self.queue
            .on_submitted_work_done(move || signal.store(true, Release));
        self.wait(Some(&index), None, || finished.load(Acquire))
            .map(|_| ())
    }
}

/// wgpu writes whole words: the last one is padded with zeros.
pub fn write_words(queue: &wgpu::Queue, target: &wgpu::Buffer, offset: u64, data: &[u8]) {
    if data.len().is_multiple_of(4) {
        queue.write_buffer(target, offset, data);
    } else {
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4), 0);
        queue.write_buffer(target, offset, &padded);
    }
}
