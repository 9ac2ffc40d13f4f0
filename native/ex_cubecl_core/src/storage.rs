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
    /// Only the bytes up to this offset were written. The others read as zeros: every access zeroes
    /// them first, except a write of the bytes that follow.
    Prefix(Memory, u64),
    Written(Memory),
    /// The memory was returned to the pool or arena that lent it: every handle is stale.
    Gone,
}

impl Content {
    fn is_prefix(&self) -> bool {
        matches!(self, Content::Prefix(..))
    }

    /// The memory to read from.
    pub fn written(&self) -> Result<&Memory> {
        match self {
            Content::Written(memory) => Ok(memory),
            Content::Unwritten(_) | Content::Prefix(..) => Err(Error::NotAllocated),
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
        loop {
            let content = self.content.read();
            if !content.is_prefix() {
                return content;
            }
            drop(content);
            drop(self.write());
        }
    }

    /// As `read`; `None` if another call holds the lock for longer than `patience`.
    pub fn read_for(&self, patience: Duration) -> Option<RwLockReadGuard<'_, Content>> {
        let content = self.content.try_read_for(patience)?;
        if !content.is_prefix() {
            return Some(content);
        }
        drop(content);
        self.complete(&mut *self.content.try_write_for(patience)?);
        self.content.try_read_for(patience)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Content> {
        let mut content = self.content.write();
        self.complete(&mut content);
        content
    }

    /// The lock for `modify`: bytes behind a prefix are not zeroed yet.
    pub fn write_at_once(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write()
    }

    /// As `read`, without blocking: `None` also if bytes would have to be zeroed.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, Content>> {
        let content = self.content.try_read()?;
        (!content.is_prefix()).then_some(content)
    }

    /// As `write`, without blocking: `None` also if bytes would have to be zeroed.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, Content>> {
        let content = self.content.try_write()?;
        (!content.is_prefix()).then_some(content)
    }

    /// Zeroes the bytes behind a prefix. If that fails, nothing can be read any more.
    fn complete(&self, content: &mut Content) {
        if !content.is_prefix() {
            return;
        }
        if let Content::Prefix(memory, end) = std::mem::replace(content, Content::Unwritten(None)) {
            *content = match self.zero_from(&memory, end) {
                Ok(()) => Content::Written(memory),
                Err(_) => Content::Unwritten(Some(memory)),
            };
        }
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

    /// Swaps the content of this storage, whose lock the caller holds, with that of a storage of the same
    /// size that no other call has. Each memory keeps the tracker entry of its original owner.
    pub fn exchange_under(&self, content: &mut Content, fresh: &Storage) {
        std::mem::swap(content, &mut fresh.content.write());
        let memory = !matches!(content, Content::Unwritten(None) | Content::Gone);
        self.allocated.store(memory, Release);
    }

    /// Runs `command` on a span under the lock. `replaces` means that it writes each byte of the span, so
    /// that fresh memory is not zeroed there, nor behind the span if it begins the storage or continues
    /// what was written. If the first command fails, memory that was allocated for it is freed. For a
    /// span of zero bytes nothing is written and nothing changes.
    pub fn modify(
        &self,
        content: &mut Content,
        span: Span,
        replaces: bool,
        command: impl FnOnce(Region<'_>) -> Result<()>,
    ) -> Result<()> {
        point(Stage::Changing);
        match content {
            Content::Gone => return Err(Error::Stale),
            _ if span.len == 0 => return Ok(()),
            Content::Written(memory) => {
                return self.region(memory, span).map_or(Ok(()), command);
            }
            Content::Prefix(..) | Content::Unwritten(_) => {}
        }
        let (memory, end, is_new) = match std::mem::replace(content, Content::Unwritten(None)) {
            Content::Prefix(memory, end) => (memory, end, false),
            Content::Unwritten(Some(memory)) => (memory, 0, false),
            _ => (self.take_memory()?, 0, true),
        };
        let continues = replaces && span.offset <= end;
        let zeroed = if continues {
            Ok(())
        } else {
            self.zero_from(&memory, end)
        };
        let done = zeroed.and_then(|()| self.region(&memory, span).map_or(Ok(()), command));
        *content = match (&done, continues) {
            (Ok(()), true) => self.written_to(memory, end.max(span.end())),
            (Ok(()), false) => Content::Written(memory),
            (Err(_), _) if is_new => Content::Unwritten(None),
            (Err(_), _) => self.written_to(memory, end),
        };
        point(Stage::Changed);
        if done.is_ok() {
            self.allocated.store(true, Release);
        }
        done
    }

    fn written_to(&self, memory: Memory, end: u64) -> Content {
        match end {
            0 => Content::Unwritten(Some(memory)),
            end if end < self.bytes => Content::Prefix(memory, end),
            _ => Content::Written(memory),
        }
    }

    /// Gives an unwritten storage its memory, all of which the caller will write, without blocking. Returns
    /// whether the storage has memory now.
    pub fn try_prepare(&self, content: &mut Content) -> bool {
        let Content::Unwritten(memory) = content else {
            return true;
        };
        let Some(memory) = memory.take().or_else(|| self.try_take_memory()) else {
            return false;
        };
        *content = Content::Written(memory);
        self.allocated.store(true, Release);
        true
    }

    /// Undoes `try_prepare` or `modify` of an unwritten storage: the command that should have written it did not run.
    pub fn withdraw(&self, content: &mut Content) {
        *content = match std::mem::replace(content, Content::Gone) {
            Content::Written(memory) => Content::Unwritten(Some(memory)),
            other => other,
        };
    }

    fn take_memory(&self) -> Result<Memory> {
        let entry = self.device.record(self.id, &self.spec, self.bytes);
        let (block, reservation) = self.device.alloc(entry)?;
        Ok(Memory::own(block, reservation))
    }

    pub fn try_take_memory(&self) -> Option<Memory> {
        let entry = self.device.record(self.id, &self.spec, self.bytes);
        let (block, reservation) = self.device.try_alloc(entry)?;
        Some(Memory::own(block, reservation))
    }

    fn zero_from(&self, memory: &Memory, end: u64) -> Result<()> {
        let driver = self.device.driver()?;
        let rest = Span {
            offset: end,
            len: self.bytes - end,
        };
        match self.region(memory, rest) {
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
        let from = source.read();
        (from, target.write_at_once())
    } else {
        let to = target.write_at_once();
        (source.read(), to)
    }
}
