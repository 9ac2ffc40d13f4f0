//! Storage and the buffers that look into it. A view is a buffer like any other: the same
//! storage, another span.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::device::{Device, DeviceId};
use crate::driver::{HostBytes, PendingRead, Region};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::heap::Block;
use crate::meter::Reservation;
use crate::numeric;
use crate::span::{Span, byte_count};

/// Ids of handles and of storages come from one counter and are never used again.
fn mint() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Bytes that one or more buffers share. Memory is taken at the first write; the lock is held
/// while a call queues its commands, which makes each call atomic, and not while it waits.
struct Storage {
    id: u64,
    device: Arc<Device>,
    bytes: u64,
    allocated: AtomicBool,
    memory: RwLock<Option<Memory>>,
}

struct Memory {
    block: Option<Block>,
    _reservation: Reservation,
}

/// A handle: a span of some storage, read as elements of one type.
pub struct Buffer {
    id: u64,
    storage: Arc<Storage>,
    span: Span,
    dtype: DType,
}

impl Buffer {
    /// A buffer of `count` elements that takes no device memory before its first write.
    pub fn lazy(device: Arc<Device>, dtype: DType, count: u64) -> Result<Buffer> {
        let limit = i64::MAX as u64;
        let bytes = byte_count(count, dtype.size()).ok_or(Error::TooLarge {
            requested: u64::MAX,
            limit,
            device: device.id(),
        })?;
        device.driver()?;
        device.check_size(bytes)?;
        let storage = Arc::new(Storage {
            id: mint(),
            device,
            bytes,
            allocated: AtomicBool::new(false),
            memory: RwLock::new(None),
        });
        Ok(Buffer::over(storage, Span::whole(bytes), dtype))
    }

    /// A buffer that holds `data`, which has the bytes of a whole number of elements.
    pub fn from_bytes(device: Arc<Device>, dtype: DType, data: &[u8]) -> Result<Buffer> {
        let buffer = Buffer::lazy(device, dtype, data.len() as u64 / dtype.size())?;
        buffer.write(0, data)?;
        Ok(buffer)
    }

    /// As `from_bytes` for a few bytes, or `None` where that would have to wait for anything.
    pub fn from_bytes_now(device: &Arc<Device>, dtype: DType, data: &[u8]) -> Option<Buffer> {
        let driver = device.driver().ok()?;
        let count = data.len() as u64 / dtype.size();
        let buffer = Buffer::lazy(device.clone(), dtype, count).ok()?;
        let (block, reservation) = device.try_alloc(buffer.bytes())?;
        let memory = Memory {
            block: Some(block),
            _reservation: reservation,
        };
        let written = driver.write_now(buffer.region(&memory)?, data);
        if !matches!(written, Ok(true)) {
            return None;
        }
        *buffer.storage.memory.write() = Some(memory);
        buffer.storage.allocated.store(true, Release);
        Some(buffer)
    }

    /// 0, 1, 2, ... as `dtype`, made on the device.
    pub fn iota(device: Arc<Device>, dtype: DType, count: u64) -> Result<Buffer> {
        let buffer = Buffer::lazy(device, dtype, count)?;
        let driver = buffer.device().driver()?;
        if !driver.computes(dtype) {
            buffer.write(0, &numeric::iota_bytes(dtype, count))?;
            return Ok(buffer);
        }
        buffer.overwrite(|region| driver.iota(region, dtype))?;
        Ok(buffer)
    }

    fn over(storage: Arc<Storage>, span: Span, dtype: DType) -> Buffer {
        Buffer {
            id: mint(),
            storage,
            span,
            dtype,
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn storage_id(&self) -> u64 {
        self.storage.id
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.storage.device
    }

    pub fn device_id(&self) -> DeviceId {
        self.storage.device.id()
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements.
    pub fn count(&self) -> u64 {
        self.span.len / self.dtype.size()
    }

    /// Bytes of this buffer.
    pub fn bytes(&self) -> u64 {
        self.span.len
    }

    /// Bytes of the storage that this buffer looks into.
    pub fn total_bytes(&self) -> u64 {
        self.storage.bytes
    }

    /// Whether the storage has its memory. One without bytes needs none.
    pub fn is_allocated(&self) -> bool {
        self.storage.bytes == 0 || self.storage.allocated.load(Acquire)
    }

    /// Handles of the same storage.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.storage)
    }

    pub fn same_storage(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    pub fn overlaps(&self, other: &Buffer) -> bool {
        self.same_storage(other) && self.span.overlaps(other.span)
    }

    /// `count` elements from `offset` on, sharing the storage.
    pub fn view(&self, offset: u64, count: u64) -> Result<Buffer> {
        let span = self.span.narrow(offset, count, self.dtype.size())?;
        Ok(Buffer::over(self.storage.clone(), span, self.dtype))
    }

    /// `len` bytes from byte `offset` on, sharing the storage, as `u8`.
    pub fn slice_bytes(&self, offset: u64, len: u64) -> Result<Buffer> {
        let span = self.span.narrow(offset, len, 1)?;
        Ok(Buffer::over(self.storage.clone(), span, DType::U8))
    }

    /// Another handle of the same elements.
    pub fn share(&self) -> Buffer {
        Buffer::over(self.storage.clone(), self.span, self.dtype)
    }

    /// Takes the memory now. It reads as zeros.
    pub fn ensure_allocated(&self) -> Result<()> {
        self.modify(false, |_| Ok(()))
    }

    /// Replaces the elements from `offset` on by those in `data`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let size = self.dtype.size();
        let part = self.view(offset, (data.len() as u64).div_ceil(size))?;
        if data.len() as u64 != part.bytes() {
            return Err(Error::ByteMismatch {
                expected: part.bytes(),
                actual: data.len() as u64,
            });
        }
        let driver = self.device().driver()?;
        part.overwrite(|region| driver.write(region, data))
    }

    /// Sets each element to the one with these bits.
    pub fn fill(&self, bits: u64) -> Result<()> {
        let driver = self.device().driver()?;
        self.overwrite(|region| driver.fill(region, bits, self.dtype.size()))
    }

    /// The bytes of several buffers, for which it waits together.
    pub fn read_all<'a>(buffers: impl IntoIterator<Item = &'a Buffer>) -> Result<Vec<HostBytes>> {
        let started: Vec<_> = buffers
            .into_iter()
            .map(|buffer| Ok((buffer, buffer.start_read(0, buffer.count())?)))
            .collect::<Result<_>>()?;
        let finished = started
            .into_iter()
            .map(|(buffer, pending)| buffer.finish(pending, None));
        finished.collect()
    }

    /// Queues a copy of `count` elements from `offset` on to the host.
    pub fn start_read(&self, offset: u64, count: u64) -> Result<Option<Box<dyn PendingRead>>> {
        let part = self.view(offset, count)?;
        let memory = self.storage.memory.read();
        part.start_read_under(&memory)
    }

    /// The bytes of `count` elements from `offset` on.
    pub fn read(&self, offset: u64, count: u64) -> Result<HostBytes> {
        self.finish(self.start_read(offset, count)?, None)
    }

    /// As `read`, but `Busy` rather than a long wait.
    pub fn read_soon(&self, offset: u64, count: u64, patience: Duration) -> Result<HostBytes> {
        let part = self.view(offset, count)?;
        let memory = self
            .storage
            .memory
            .try_read_for(patience)
            .ok_or(Error::Busy)?;
        let pending = part.start_read_under(&memory)?;
        drop(memory);
        self.finish(pending, Some(patience))
    }

    /// Waits for a read that was started.
    pub fn finish(
        &self,
        pending: Option<Box<dyn PendingRead>>,
        patience: Option<Duration>,
    ) -> Result<HostBytes> {
        match pending {
            Some(pending) => self.device().explain(pending.wait(patience)),
            None => Ok(HostBytes::new(Vec::new())),
        }
    }

    fn start_read_under(&self, memory: &Option<Memory>) -> Result<Option<Box<dyn PendingRead>>> {
        let driver = self.device().driver()?;
        if self.storage.bytes == 0 {
            return Ok(None);
        }
        let block = memory.as_ref().ok_or(Error::NotAllocated)?;
        match self.region(block) {
            Some(region) => self.device().explain(driver.read(region)).map(Some),
            None => Ok(None),
        }
    }

    /// Copies all elements of `self` into `target`, which keeps its place.
    pub fn copy_to(&self, target: &Buffer) -> Result<()> {
        self.check_alike(target)?;
        if self.overlaps(target) {
            return Err(Error::Overlap);
        }
        let driver = self.device().driver()?;
        if !Arc::ptr_eq(self.device(), target.device()) {
            target.device().driver()?;
            return target.write(0, &self.read(0, self.count())?);
        }
        if self.same_storage(target) {
            return self.copy_within(target);
        }
        let (source, mut destination) = lock_both(&self.storage, &target.storage);
        let Some(from) = self.region_or_unwritten(&source)? else {
            return Ok(());
        };
        target.modify_under(&mut destination, target.covers_all(), |to| {
            driver.copy(from, to)
        })
    }

    fn copy_within(&self, target: &Buffer) -> Result<()> {
        let driver = self.device().driver()?;
        let memory = self.storage.memory.write();
        let Some(from) = self.region_or_unwritten(&memory)? else {
            return Ok(());
        };
        match memory.as_ref().and_then(|memory| target.region(memory)) {
            Some(to) => self.device().explain(driver.copy(from, to)),
            None => Ok(()),
        }
    }

    fn check_alike(&self, target: &Buffer) -> Result<()> {
        if self.dtype != target.dtype {
            return Err(Error::TypeMismatch {
                expected: target.dtype,
                actual: self.dtype,
            });
        }
        match self.count() == target.count() {
            true => Ok(()),
            false => Err(Error::ShapeMismatch {
                expected: target.count(),
                actual: self.count(),
            }),
        }
    }

    /// The same elements in a storage of their own, on `device`.
    pub fn duplicate_on(&self, device: Arc<Device>) -> Result<Buffer> {
        let copy = Buffer::lazy(device, self.dtype, self.count())?;
        self.copy_to(&copy)?;
        Ok(copy)
    }

    /// The elements as another type, in a storage of their own.
    pub fn convert(&self, dtype: DType) -> Result<Buffer> {
        if dtype == self.dtype {
            return self.duplicate_on(self.device().clone());
        }
        let driver = self.device().driver()?;
        if !(driver.computes(self.dtype) && driver.computes(dtype)) {
            let bytes = numeric::convert_bytes(self.dtype, dtype, &self.read(0, self.count())?);
            return Buffer::from_bytes(self.device().clone(), dtype, &bytes);
        }
        let target = Buffer::lazy(self.device().clone(), dtype, self.count())?;
        let source = self.storage.memory.read();
        if let Some(from) = self.region_or_unwritten(&source)? {
            target.overwrite(|to| driver.convert(from, self.dtype, to, dtype))?;
        }
        Ok(target)
    }

    /// The device address of the first element, for other libraries.
    pub fn pointer(&self) -> Result<u64> {
        let driver = self.device().driver()?;
        let memory = self.storage.memory.read();
        let memory = memory.as_ref().ok_or(Error::NotAllocated)?;
        let region = self.region(memory).ok_or(Error::NotAllocated)?;
        self.device().explain(driver.pointer(region))
    }

    fn covers_all(&self) -> bool {
        self.span.len == self.storage.bytes
    }

    /// Runs `command` on this buffer's bytes, all of which it replaces.
    fn overwrite(&self, command: impl FnOnce(Region<'_>) -> Result<()>) -> Result<()> {
        self.modify(self.covers_all(), command)
    }

    fn modify(&self, whole: bool, command: impl FnOnce(Region<'_>) -> Result<()>) -> Result<()> {
        let mut memory = self.storage.memory.write();
        self.modify_under(&mut memory, whole, command)
    }

    /// `whole` says that each byte of the storage will be replaced, so that fresh memory need not
    /// be zeroed. Where the first command fails, the memory is given back: nobody can read it.
    fn modify_under(
        &self,
        memory: &mut Option<Memory>,
        whole: bool,
        command: impl FnOnce(Region<'_>) -> Result<()>,
    ) -> Result<()> {
        self.device().driver()?;
        let fresh = memory.is_none();
        if fresh {
            *memory = Some(self.storage.take_memory()?);
        }
        let result = memory.as_ref().map_or(Ok(()), |memory| {
            if fresh && !whole {
                self.storage.zero(memory)?;
            }
            self.region(memory).map_or(Ok(()), command)
        });
        match &result {
            Ok(()) => self.storage.allocated.store(true, Release),
            Err(_) if fresh => *memory = None,
            Err(_) => {}
        }
        self.device().explain(result)
    }

    fn region_or_unwritten<'a>(&self, memory: &'a Option<Memory>) -> Result<Option<Region<'a>>> {
        if self.storage.bytes == 0 {
            return Ok(None);
        }
        let memory = memory.as_ref().ok_or(Error::NotAllocated)?;
        Ok(self.region(memory))
    }

    /// `None` for a buffer without bytes.
    fn region<'a>(&self, memory: &'a Memory) -> Option<Region<'a>> {
        if self.span.len == 0 {
            return None;
        }
        self.storage.region(memory, self.span)
    }
}

impl Storage {
    fn take_memory(&self) -> Result<Memory> {
        if self.bytes == 0 {
            return Ok(Memory {
                block: None,
                _reservation: self.device.reserve(0)?,
            });
        }
        let (block, reservation) = self.device.alloc(self.bytes)?;
        Ok(Memory {
            block: Some(block),
            _reservation: reservation,
        })
    }

    fn zero(&self, memory: &Memory) -> Result<()> {
        let driver = self.device.driver()?;
        match self.region(memory, Span::whole(self.bytes)) {
            Some(region) => driver.fill(region, 0, 1),
            None => Ok(()),
        }
    }

    fn region<'a>(&self, memory: &'a Memory, span: Span) -> Option<Region<'a>> {
        let block = memory.block.as_ref()?;
        let is_last = span.end() == self.bytes;
        Some(Region {
            page: block.page(),
            offset: block.offset + span.offset,
            len: span.len,
            slack: if is_last { block.room - self.bytes } else { 0 },
        })
    }
}

/// Locks a source and a destination in the order of their ids, so that two copies in opposite
/// directions cannot wait for each other.
fn lock_both<'a>(
    source: &'a Storage,
    target: &'a Storage,
) -> (
    RwLockReadGuard<'a, Option<Memory>>,
    RwLockWriteGuard<'a, Option<Memory>>,
) {
    if source.id < target.id {
        let from = source.memory.read();
        (from, target.memory.write())
    } else {
        let to = target.memory.write();
        (source.memory.read(), to)
    }
}
