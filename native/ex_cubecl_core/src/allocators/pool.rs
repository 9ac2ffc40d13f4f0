//! Blocks of one size, kept for reuse. Each checkout makes a new storage over a block that an
//! earlier holder may have used: the old content cannot be read, and checking a buffer in makes
//! every handle of its holder stale.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::buffer::Buffer;
use crate::device::{Device, Reclaim};
use crate::error::{Error, Result};
use crate::failpoints::{Stage, point};
use crate::memory::allocation_tracker::{Label, Record, Spec};
use crate::memory::heap::Block;
use crate::memory::meter::Reservation;
use crate::storage::{Lender, Lent, Memory, Storage, next_id};

/// Called when a block is returned while a process waits for one. It must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

pub struct Pool {
    lender: Lender,
    device: Arc<Device>,
    spec: Spec,
    bytes: u64,
    max: AtomicU64,
    state: Mutex<State>,
    hits: AtomicU64,
    misses: AtomicU64,
    waits: AtomicU64,
    waiting: AtomicU64,
    waker: Option<Waker>,
}

#[derive(Default)]
struct State {
    idle: Vec<Block>,
    allocated: u64,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Idle blocks.
    pub available: u64,
    /// All blocks, held or not.
    pub allocated: u64,
    pub max: u64,
    /// Checkouts served by an idle block, and checkouts that allocated new memory.
    pub hits: u64,
    pub misses: u64,
    /// Checkouts that waited until another holder returned a block.
    pub waits: u64,
}

/// A block that is checked out.
struct Slot {
    pool: Arc<Pool>,
    block: Option<Block>,
}

impl Lent for Slot {
    fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.take_back(block);
        }
    }
}

/// A block that the pool has counted but not allocated yet. Dropping it undoes the count.
struct Grown<'a>(&'a Pool);

impl Grown<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        self.0.state.lock().allocated -= 1;
    }
}

impl Pool {
    /// A pool of at most `max` buffers like `spec`.
    pub fn new(
        device: Arc<Device>,
        spec: Spec,
        max: u64,
        waker: Option<Waker>,
    ) -> Result<Arc<Pool>> {
        Pool::make(device, spec, max, waker, false)
    }

    /// A pool that all processes share.
    pub(crate) fn shared(device: Arc<Device>, spec: Spec, max: u64) -> Result<Arc<Pool>> {
        Pool::make(device, spec, max, None, true)
    }

    fn make(
        device: Arc<Device>,
        spec: Spec,
        max: u64,
        waker: Option<Waker>,
        is_shared: bool,
    ) -> Result<Arc<Pool>> {
        let bytes = spec.bytes().unwrap_or(u64::MAX);
        device.driver()?;
        device.check_size(bytes)?;
        let pool = Arc::new(Pool {
            lender: Lender {
                id: next_id(),
                is_shared,
            },
            device,
            spec,
            bytes,
            max: AtomicU64::new(max),
            state: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            waker,
        });
        let weak: Weak<Pool> = Arc::downgrade(&pool);
        pool.device.add_reclaimer(weak);
        Ok(pool)
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn set_max(&self, max: u64) {
        self.max.store(max, Relaxed);
    }

    /// Whether no buffer of the pool is checked out.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.idle.len() as u64 == state.allocated
    }

    /// Checks out an idle buffer, or returns `None` if there is none. It does not call the driver.
    pub fn take(self: &Arc<Self>, owner: &Label) -> Result<Option<Buffer>> {
        self.take_as(&self.owned_by(owner))
    }

    /// As `take`, for a buffer like `spec`, which has as many bytes as the buffers of the pool.
    pub(crate) fn take_as(self: &Arc<Self>, spec: &Spec) -> Result<Option<Buffer>> {
        self.device.driver()?;
        let Some(slot) = self.take_idle()? else {
            return Ok(None);
        };
        let reservation = self.device.reserve(self.record(spec))?;
        let buffer = self.buffer(slot, spec, reservation);
        self.hits.fetch_add(1, Relaxed);
        Ok(Some(buffer))
    }

    fn take_idle(self: &Arc<Self>) -> Result<Option<Slot>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Stale);
        }
        let block = state.idle.pop();
        Ok(block.map(|block| self.slot(block)))
    }

    fn slot(self: &Arc<Self>, block: Block) -> Slot {
        Slot {
            pool: self.clone(),
            block: Some(block),
        }
    }

    /// Checks out an idle buffer, or allocates one unless the pool has its maximum.
    pub fn check_out(self: &Arc<Self>, owner: &Label) -> Result<Buffer> {
        self.check_out_as(&self.owned_by(owner))
    }

    /// As `check_out`, for a buffer like `spec`, which has as many bytes as the buffers of the pool.
    pub(crate) fn check_out_as(self: &Arc<Self>, spec: &Spec) -> Result<Buffer> {
        if let Some(buffer) = self.take_as(spec)? {
            return Ok(buffer);
        }
        let grown = self.grow()?;
        point(Stage::PoolGrown);
        let (block, reservation) = self.device.alloc(self.record(spec))?;
        grown.keep();
        self.misses.fetch_add(1, Relaxed);
        Ok(self.buffer(self.slot(block), spec, reservation))
    }

    /// Counts one more block. Dropping the returned value undoes the count.
    fn grow(&self) -> Result<Grown<'_>> {
        let max = self.max.load(Relaxed);
        let mut state = self.state.lock();
        if state.allocated >= max {
            return Err(Error::PoolExhausted { max });
        }
        state.allocated += 1;
        Ok(Grown(self))
    }

    fn owned_by(&self, owner: &Label) -> Spec {
        let label = Label {
            owner: owner.owner,
            tag: owner.tag.clone().or_else(|| self.spec.label.tag.clone()),
            trace: owner.trace.clone(),
        };
        Spec {
            label,
            ..self.spec.clone()
        }
    }

    fn record(&self, spec: &Spec) -> Record {
        self.device.record(next_id(), spec, self.bytes)
    }

    fn buffer(&self, slot: Slot, spec: &Spec, reservation: Reservation) -> Buffer {
        let room = slot.block.as_ref().map_or(0, |block| block.room);
        if let Some(block) = &slot.block {
            reservation.set_location(block.location());
        }
        let memory = Memory::lent(Box::new(slot), 0, room, Some(reservation));
        let device = self.device.clone();
        let storage = Storage::lent(device, spec.clone(), self.bytes, Some(memory), self.lender);
        Buffer::lent(storage, spec.dtype)
    }

    /// Takes a buffer back and makes each of its handles stale. Without `wait` it returns `Busy` if
    /// a call of another process is using the buffer.
    pub fn check_in(&self, buffer: &Buffer, wait: bool) -> Result<()> {
        match buffer.lender() {
            Some(lender) if lender == self.lender => {
                buffer.give_back(wait)?;
                self.device.driver().map(|_| ())
            }
            _ => Err(Error::Foreign),
        }
    }

    fn take_back(&self, block: Block) {
        let keep = !self.device.is_lost();
        let dropped = {
            let mut state = self.state.lock();
            if keep && !state.closed && state.allocated <= self.max.load(Relaxed) {
                state.idle.push(block);
                None
            } else {
                state.allocated -= 1;
                Some(block)
            }
        };
        drop(dropped);
        if self.waiting.load(Relaxed) > 0
            && let Some(waker) = &self.waker
        {
            waker();
        }
    }

    /// Sets how many processes wait for a block. While there are any, each returned block calls the
    /// waker function.
    pub fn set_waiting(&self, waiting: u64) {
        self.waiting.store(waiting, Relaxed);
    }

    pub fn count_wait(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    /// Stops handing out buffers and frees idle ones. Buffers that are checked out stay usable
    /// until they are returned.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.reclaim();
    }

    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            available: state.idle.len() as u64,
            allocated: state.allocated,
            max: self.max.load(Relaxed),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            waits: self.waits.load(Relaxed),
        }
    }
}

impl Reclaim for Pool {
    fn reclaim(&self) {
        let idle = {
            let mut state = self.state.lock();
            let idle = std::mem::take(&mut state.idle);
            state.allocated -= idle.len() as u64;
            idle
        };
        drop(idle);
    }
}
