//! The bytes that one or more buffers share. A call holds the storage's lock while it queues its commands,
//! which makes each call atomic, but not while it waits for the device.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::device::Device;
use crate::driver::Region;
use crate::error::{Error, Result};
use crate::failpoints::{Stage, point};
use crate::memory::allocation_tracker::Spec;
use crate::memory::heap::Block;
use crate::memory::meter::Reservation;
use crate::span::Span;

/// A new id. Ids of handles, storages, pools and arenas come from one counter and are never reused.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// The pool or arena that lent the memory of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lender {
    pub id: u64,
    /// Whether it is a pool that all processes share.
    pub is_shared: bool,
}

/// Memory that a pool or an arena lends. Dropping it returns the memory.
pub(crate) trait Lent: Send + Sync {
    fn block(&self) -> Option<&Block>;
}

enum Source {
    Own(Block),
    Lent(Box<dyn Lent>),
}

pub(crate) struct Memory {
    source: Source,
    /// From the start of the block.
    offset: u64,
    room: u64,
    _reservation: Option<Reservation>,
}

impl Memory {
    pub fn own(block: Block, reservation: Reservation) -> Self {
        Memory {
            offset: 0,
            room: block.room,
            source: Source::Own(block),
            _reservation: Some(reservation),
        }
    }

    /// `room` bytes at `offset` in a block that a pool or an arena owns.
    pub fn lent(
        lent: Box<dyn Lent>,
        offset: u64,
        room: u64,
        reservation: Option<Reservation>,
    ) -> Self {
        Memory {
            source: Source::Lent(lent),
            offset,
            room,
            _reservation: reservation,
        }
    }

    fn block(&self) -> Option<&Block> {
        match &self.source {
            Source::Own(block) => Some(block),
            Source::Lent(lent) => lent.block(),
        }
    }
}

/// The content of a storage.
pub(crate) enum Content {
    /// Nothing was written. Memory may already be allocated, but no byte of it can be read.
    Unwritten(Option<Memory>),
    Written(Memory),
    /// The memory was returned to the pool or arena that lent it: every handle is stale.
    Gone,
}

impl Content {
    /// The memory to read from.
    pub fn written(&self) -> Result<&Memory> {
        match self {
            Content::Written(memory) => Ok(memory),
            Content::Unwritten(_) => Err(Error::NotAllocated),
            Content::Gone => Err(Error::Stale),
        }
    }
}

pub(crate) struct Storage {
    pub id: u64,
    pub bytes: u64,
    /// The pool or arena that lent the memory.
    pub lender: Option<Lender>,
    spec: Spec,
    allocated: AtomicBool,
    content: RwLock<Content>,
    /// Declared after `content`, so that the device is dropped after its blocks.
    pub device: Arc<Device>,
}

impl Storage {
    /// A storage that allocates its memory at the first write.
    pub fn lazy(device: Arc<Device>, spec: Spec, bytes: u64) -> Arc<Self> {
        Storage::new(device, spec, bytes, None, None)
    }

    /// A storage in memory of `lender`, unreadable until it is written. Without `memory` it allocates at
    /// the first write.
    pub fn lent(
        device: Arc<Device>,
        spec: Spec,
        bytes: u64,
        memory: Option<Memory>,
        lender: Lender,
    ) -> Arc<Self> {
        Storage::new(device, spec, bytes, memory, Some(lender))
    }

    fn new(
        device: Arc<Device>,
        spec: Spec,
        bytes: u64,
        memory: Option<Memory>,
        lender: Option<Lender>,
    ) -> Arc<Self> {
        Arc::new(Storage {
            id: next_id(),
            device,
            bytes,
            lender,
            spec,
            allocated: AtomicBool::new(memory.is_some()),
            content: RwLock::new(Content::Unwritten(memory)),
        })
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn is_allocated(&self) -> bool {
        self.allocated.load(Acquire)
    }

    /// Sets memory in which every byte is written.
    pub fn fill_with(&self, memory: Memory) {
        *self.content.write() = Content::Written(memory);
        self.allocated.store(true, Release);
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read()
    }

    pub fn read_for(&self, patience: Duration) -> Option<RwLockReadGuard<'_, Content>> {
        self.content.try_read_for(patience)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write()
    }

    /// Makes every handle stale. The memory is returned to its owner when the returned value is dropped.
    pub fn end(&self) -> Content {
        self.end_under(&mut self.content.write())
    }

    /// As `end`, without blocking: returns `None` if a call of another process holds the lock.
    pub fn try_end(&self) -> Option<Content> {
        Some(self.end_under(&mut *self.content.try_write()?))
    }

    /// As `end`, for a caller that holds the lock.
    pub fn end_under(&self, content: &mut Content) -> Content {
        self.allocated.store(false, Release);
        std::mem::replace(content, Content::Gone)
    }

    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, Content>> {
        self.content.try_write()
    }

    /// Swaps the content of this storage, whose lock the caller holds, with that of a storage of the same
    /// size that no other call has. Each memory keeps the tracker entry of its original owner.
    pub fn exchange_under(&self, content: &mut Content, fresh: &Storage) {
        std::mem::swap(content, &mut fresh.content.write());
        let memory = !matches!(content, Content::Unwritten(None) | Content::Gone);
        self.allocated.store(memory, Release);
    }

    /// Runs `command` on a span under the lock. `whole` means that it replaces each byte of the storage,
    /// so that fresh memory is not zeroed. If the first command fails, memory that was allocated for it
    /// is freed. For a span of zero bytes nothing is written and nothing changes.
    pub fn modify(
        &self,
        content: &mut Content,
        span: Span,
        whole: bool,
        command: impl FnOnce(Region<'_>) -> Result<()>,
    ) -> Result<()> {
        point(Stage::Changing);
        let fresh = match content {
            Content::Gone => return Err(Error::Stale),
            _ if span.len == 0 => return Ok(()),
            Content::Written(memory) => {
                return self.region(memory, span).map_or(Ok(()), command);
            }
            Content::Unwritten(memory) => memory.take(),
        };
        let lent = fresh.is_some();
        let memory = match fresh {
            Some(memory) => memory,
            None => self.take_memory()?,
        };
        let zeroed = if whole { Ok(()) } else { self.zero(&memory) };
        let done = zeroed.and_then(|()| self.region(&memory, span).map_or(Ok(()), command));
        *content = match (&done, lent) {
            (Ok(()), _) => Content::Written(memory),
            (Err(_), true) => Content::Unwritten(Some(memory)),
            (Err(_), false) => Content::Unwritten(None),
        };
        point(Stage::Changed);
        if done.is_ok() {
            self.allocated.store(true, Release);
        }
        done
    }

    fn take_memory(&self) -> Result<Memory> {
        let entry = self.device.record(self.id, &self.spec, self.bytes);
        let (block, reservation) = self.device.alloc(entry)?;
        Ok(Memory::own(block, reservation))
    }

    fn zero(&self, memory: &Memory) -> Result<()> {
        let driver = self.device.driver()?;
        match self.region(memory, Span::whole(self.bytes)) {
            Some(region) => driver.fill(region, 0, 1),
            None => Ok(()),
        }
    }

    /// The region of a span; `None` for a span of zero bytes.
    pub fn region<'a>(&self, memory: &'a Memory, span: Span) -> Option<Region<'a>> {
        let block = memory.block().filter(|_| span.len > 0)?;
        let is_last = span.end() == self.bytes;
        Some(Region {
            page: block.page(),
            offset: block.offset + memory.offset + span.offset,
            len: span.len,
            slack: if is_last { memory.room - self.bytes } else { 0 },
        })
    }
}

/// Locks a source and a destination in the order of their ids, so that two copies in opposite
/// directions cannot wait for each other.
pub(crate) fn lock_both<'a>(
    source: &'a Storage,
    target: &'a Storage,
) -> (RwLockReadGuard<'a, Content>, RwLockWriteGuard<'a, Content>) {
    if source.id < target.id {
        let from = source.content.read();
        (from, target.content.write())
    } else {
        let to = target.content.write();
        (source.content.read(), to)
    }
}
