//! Buffer handles. A view is a buffer like any other: the same storage with another span.

mod access;

use std::sync::Arc;

use crate::device::Device;
use crate::device_id::DeviceId;
use crate::driver::Progress;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::allocation_tracker::{Label, Spec};
use crate::numeric;
use crate::span::Span;
use crate::storage::{Content, Lender, Storage, next_id};

/// A handle: a span of a storage, interpreted as elements of one type.
pub struct Buffer {
    id: u64,
    /// Buffers with the same identity may alias. Tensors of one arena share it, a detached buffer has its own.
    identity: u64,
    storage: Arc<Storage>,
    span: Span,
    dtype: DType,
    /// Whether this is the handle that a pool or an arena gave out, and takes back.
    root: bool,
}

impl Buffer {
    /// A buffer that allocates no device memory before its first write.
    pub fn lazy(device: Arc<Device>, spec: impl Into<Spec>) -> Result<Buffer> {
        let spec = spec.into();
        let bytes = spec.bytes().ok_or(Error::TooLarge {
            requested: u64::MAX,
            limit: i64::MAX as u64,
            device: device.id(),
        })?;
        device.driver()?;
        device.check_size(bytes)?;
        let dtype = spec.dtype;
        let storage = Storage::lazy(device, spec, bytes);
        Ok(Buffer::whole(storage, dtype))
    }

    /// A one-dimensional buffer that holds `data`.
    pub fn from_bytes(device: Arc<Device>, dtype: DType, data: &[u8]) -> Result<Buffer> {
        let count = data.len() as u64 / dtype.size();
        Buffer::new(device, (dtype, count), data)
    }

    /// A buffer that holds `data`.
    pub fn new(device: Arc<Device>, spec: impl Into<Spec>, data: &[u8]) -> Result<Buffer> {
        Buffer::new_with_progress(device, spec, data, None)
    }

    /// As `new`, and reports the number of transferred bytes to `progress`.
    pub fn new_with_progress(
        device: Arc<Device>,
        spec: impl Into<Spec>,
        data: &[u8],
        progress: Option<&Progress>,
    ) -> Result<Buffer> {
        let buffer = Buffer::lazy(device, spec)?;
        buffer.check_bytes(data)?;
        buffer.write_with_progress(0, data, progress)?;
        Ok(buffer)
    }

    /// As `from_bytes` for a few bytes, without blocking: returns `None` if it would block.
    pub fn try_from_bytes(device: &Arc<Device>, spec: Spec, data: &[u8]) -> Option<Buffer> {
        let driver = device.driver().ok()?;
        let buffer = Buffer::lazy(device.clone(), spec).ok()?;
        buffer.check_bytes(data).ok()?;
        let storage = &buffer.storage;
        let memory = storage.try_take_memory()?;
        let region = storage.region(&memory, buffer.span)?;
        if !driver.defer_write(region, data) {
            return None;
        }
        storage.fill_with(memory);
        Some(buffer)
    }

    fn check_bytes(&self, data: &[u8]) -> Result<()> {
        let (expected, actual) = (self.bytes(), data.len() as u64);
        if expected == actual {
            Ok(())
        } else {
            Err(Error::ByteMismatch { expected, actual })
        }
    }

    /// A buffer of 0, 1, 2, ..., filled on the device if it supports the type.
    pub fn iota(device: Arc<Device>, spec: impl Into<Spec>) -> Result<Buffer> {
        let buffer = Buffer::lazy(device, spec)?;
        let (driver, dtype) = (buffer.device().driver()?, buffer.dtype);
        if !driver.supports_convert(dtype) {
            buffer.write(0, &numeric::iota_bytes(dtype, buffer.count()))?;
            return Ok(buffer);
        }
        buffer.overwrite(|region| driver.iota(region, dtype))?;
        Ok(buffer)
    }

    /// A handle of a whole storage.
    fn whole(storage: Arc<Storage>, dtype: DType) -> Buffer {
        Buffer {
            id: next_id(),
            identity: storage.id,
            span: Span::whole(storage.bytes),
            storage,
            dtype,
            root: false,
        }
    }

    /// The handle of a storage that a pool gives out.
    pub(crate) fn lent(storage: Arc<Storage>, dtype: DType) -> Buffer {
        Buffer {
            root: true,
            ..Buffer::whole(storage, dtype)
        }
    }

    /// The handle of a storage, or of a part of it, that the arena with id `identity` gives out.
    pub(crate) fn tensor(storage: Arc<Storage>, span: Span, dtype: DType, identity: u64) -> Buffer {
        Buffer {
            identity,
            span,
            ..Buffer::lent(storage, dtype)
        }
    }

    /// Another handle of the same elements, with a new identity: `same_storage` and `overlaps` do not
    /// detect that it aliases this buffer.
    pub fn detach(&self) -> Buffer {
        Buffer {
            identity: next_id(),
            ..self.share()
        }
    }

    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// The pool or arena that lent the memory.
    pub(crate) fn lender(&self) -> Option<Lender> {
        self.storage.lender
    }

    /// Returns the memory to the pool and makes every handle stale. Without `wait` it returns `Busy` if
    /// another call uses the buffer.
    pub(crate) fn give_back(&self, wait: bool) -> Result<()> {
        if !self.root {
            return Err(Error::NotRoot);
        }
        let ended = if wait {
            self.storage.end()
        } else {
            self.storage.try_end().ok_or(Error::Busy)?
        };
        match ended {
            Content::Gone => Err(Error::Stale),
            _ => Ok(()),
        }
    }

    /// Returns the buffer of a holder that died, without blocking.
    pub fn abandon(&self) {
        if self.root && matches!(self.give_back(false), Err(Error::Busy)) {
            let storage = self.storage.clone();
            let _ = self.device().worker().run(move || drop(storage.end()));
        }
    }

    /// Frees the memory at once if no other handle shares it, and makes this handle stale; returns whether it did. Memory
    /// that a pool or an arena lent is theirs. Without `wait` it returns `Busy` if another call uses the buffer.
    pub fn release(&self, wait: bool) -> Result<bool> {
        if self.lender().is_some() || self.handles() > 1 {
            return Ok(false);
        }
        let ended = if wait {
            self.storage.end()
        } else {
            self.storage.try_end().ok_or(Error::Busy)?
        };
        Ok(!matches!(ended, Content::Gone))
    }

    /// Another handle of the same storage.
    fn with_span(&self, span: Span, dtype: DType) -> Buffer {
        Buffer {
            id: next_id(),
            identity: self.identity,
            storage: self.storage.clone(),
            span,
            dtype,
            root: false,
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn storage_id(&self) -> u64 {
        self.identity
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

    /// The number of elements.
    pub fn count(&self) -> u64 {
        self.span.len / self.dtype.size()
    }

    /// The size of this buffer in bytes.
    pub fn bytes(&self) -> u64 {
        self.span.len
    }

    /// The size of the buffer's storage in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.storage.bytes
    }

    /// Whether the storage has its memory. A storage of zero bytes needs none.
    pub fn is_allocated(&self) -> bool {
        self.storage.bytes == 0 || self.storage.is_allocated()
    }

    /// The number of handles of the storage.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.storage)
    }

    pub fn same_storage(&self, other: &Buffer) -> bool {
        self.identity == other.identity
    }

    pub fn overlaps(&self, other: &Buffer) -> bool {
        self.same_storage(other) && self.shares_bytes(other)
    }

    /// As `overlaps`, regardless of the handles' identities.
    pub(crate) fn shares_bytes(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage) && self.span.overlaps(other.span)
    }

    /// `count` elements from `offset` on, sharing the storage.
    pub fn view(&self, offset: u64, count: u64) -> Result<Buffer> {
        let span = self.span.narrow(offset, count, self.dtype.size())?;
        Ok(self.with_span(span, self.dtype))
    }

    /// `len` bytes from byte `offset` on, sharing the storage, as `u8`.
    pub fn slice_bytes(&self, offset: u64, len: u64) -> Result<Buffer> {
        let span = self.span.narrow(offset, len, 1)?;
        Ok(self.with_span(span, DType::U8))
    }

    /// The same bytes as elements of another type. A kernel can only bind elements at multiples of their size.
    pub fn bitcast(&self, dtype: DType) -> Result<Buffer> {
        let size = dtype.size();
        if !self.span.len.is_multiple_of(size) {
            return Err(Error::ByteMismatch {
                expected: self.span.len.next_multiple_of(size),
                actual: self.span.len,
            });
        }
        if !self.span.offset.is_multiple_of(size) {
            return Err(Error::Misaligned {
                offset: self.span.offset,
                alignment: size,
            });
        }
        Ok(self.with_span(self.span, dtype))
    }

    /// Another handle of the same elements.
    pub fn share(&self) -> Buffer {
        self.with_span(self.span, self.dtype)
    }

    /// A spec with as many elements as this buffer has.
    pub fn like(&self, dtype: DType) -> Spec {
        (dtype, self.count()).into()
    }

    /// Whether this buffer and `fresh` may exchange contents: both cover a whole storage, of the same size,
    /// on the same device.
    pub(crate) fn is_exchangeable(&self, fresh: &Buffer) -> bool {
        let alike = self.covers_all() && fresh.covers_all() && self.bytes() == fresh.bytes();
        alike && Arc::ptr_eq(self.device(), fresh.device())
    }

    /// The owner, tag and stacktrace of the storage.
    pub fn label(&self) -> &Label {
        &self.storage.spec().label
    }

    /// The device address of the first element, for other libraries.
    pub fn pointer(&self) -> Result<u64> {
        let driver = self.device().driver()?;
        let content = self.storage.read();
        let region = self.source(&content)?.ok_or(Error::NotAllocated)?;
        self.device().explain(driver.pointer(region))
    }

    /// Replaces all elements by the bytes at a device address, of this or another library.
    pub fn copy_from_pointer(&self, address: u64) -> Result<()> {
        let driver = self.device().driver()?;
        self.overwrite(|region| driver.copy_from_pointer(address, region))
    }
}
