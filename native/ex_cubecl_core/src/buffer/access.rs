//! Access to the elements of a buffer: writes, fills, reads, copies and conversions. Each takes the lock of the
//! storage while its commands are queued.

use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Buffer;
use crate::driver::{PendingRead, Progress, Region};
use crate::error::{Error, Result};
use crate::failpoints::{Stage, point};
use crate::memory::allocation_tracker::Spec;
use crate::numeric;
use crate::span::Span;
use crate::storage::{Content, lock_both};

impl Buffer {
    /// Replaces the elements from `offset` on with `data`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_with_progress(offset, data, None)
    }

    /// As `write`, and reports the number of transferred bytes to `progress`.
    pub fn write_with_progress(
        &self,
        offset: u64,
        data: &[u8],
        progress: Option<&Progress>,
    ) -> Result<()> {
        let size = self.dtype.size();
        let part = self.view(offset, (data.len() as u64).div_ceil(size))?;
        if data.len() as u64 != part.bytes() {
            return Err(Error::ByteMismatch {
                expected: part.bytes(),
                actual: data.len() as u64,
            });
        }
        let driver = self.device().driver()?;
        part.overwrite(|region| driver.write(region, data, progress))
    }

    /// Sets each element to the value with these bits.
    pub fn fill(&self, bits: u64) -> Result<()> {
        let driver = self.device().driver()?;
        self.overwrite(|region| driver.fill(region, bits, self.dtype.size()))
    }

    /// Queues a copy of `count` elements from `offset` on to the host.
    pub fn start_read(
        &self,
        offset: u64,
        count: u64,
        progress: Option<&Progress>,
    ) -> Result<Option<Box<dyn PendingRead>>> {
        let part = self.view(offset, count)?;
        part.start_read_under(&self.storage.read(), progress)
    }

    /// Reads the bytes of `count` elements from `offset` on.
    pub fn read(&self, offset: u64, count: u64) -> Result<Vec<u8>> {
        let pending = self.start_read(offset, count, None)?;
        let len = pending.as_ref().map_or(0, |_| count * self.dtype.size());
        let mut bytes = vec![0; len as usize];
        self.finish_read(pending, &mut bytes, None)?;
        Ok(bytes)
    }

    /// Starts a read, unless another call holds the storage for longer than `patience`.
    pub fn start_read_within(
        &self,
        count: u64,
        patience: Duration,
    ) -> Result<Option<Box<dyn PendingRead>>> {
        let part = self.view(0, count)?;
        let content = self.storage.read_for(patience).ok_or(Error::Busy)?;
        part.start_read_under(&content, None)
    }

    /// Waits for a read that was started; `out` has its length. `pending` is `None` for a read of zero bytes.
    pub fn finish_read(
        &self,
        pending: Option<Box<dyn PendingRead>>,
        out: &mut [u8],
        patience: Option<Duration>,
    ) -> Result<()> {
        point(Stage::Waiting);
        match pending {
            Some(pending) => self.device().explain(pending.wait_into(0, out, patience)),
            None => Ok(()),
        }
    }

    pub(crate) fn start_read_under(
        &self,
        content: &Content,
        progress: Option<&Progress>,
    ) -> Result<Option<Box<dyn PendingRead>>> {
        let driver = self.device().driver()?;
        match self.source(content)? {
            Some(region) => {
                let pending = self.device().explain(driver.read(region, progress))?;
                point(Stage::Queued);
                Ok(Some(pending))
            }
            None => Ok(None),
        }
    }

    /// Copies all elements of `self` into `target` on the same device; `target` keeps its memory.
    /// [`crate::transfer::copy_across`] copies between devices.
    pub fn copy_to(&self, target: &Buffer) -> Result<()> {
        self.check_alike(target)?;
        if self.overlaps(target) {
            return Err(Error::Overlap);
        }
        let driver = self.device().driver()?;
        if !Arc::ptr_eq(self.device(), target.device()) {
            target.device().driver()?;
            return Err(Error::OtherDevice {
                device: self.device_id(),
                expected: target.device_id(),
            });
        }
        if self.shares_bytes(target) {
            return self.duplicate()?.copy_to(target);
        }
        if Arc::ptr_eq(&self.storage, &target.storage) {
            return self.copy_within(target);
        }
        let (source, mut destination) = lock_both(&self.storage, &target.storage);
        let from = self.source(&source)?;
        target.modify_under(&mut destination, true, |to| {
            from.map_or(Ok(()), |from| driver.copy(from, to))
        })
    }

    fn copy_within(&self, target: &Buffer) -> Result<()> {
        let driver = self.device().driver()?;
        let content = self.storage.write();
        match (self.source(&content)?, target.source(&content)?) {
            (Some(from), Some(to)) => self.device().explain(driver.copy(from, to)),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_alike(&self, target: &Buffer) -> Result<()> {
        if self.dtype != target.dtype {
            return Err(Error::TypeMismatch {
                expected: target.dtype,
                actual: self.dtype,
            });
        }
        if self.count() == target.count() {
            Ok(())
        } else {
            Err(Error::ShapeMismatch {
                expected: target.count(),
                actual: self.count(),
            })
        }
    }

    /// A copy of the elements in a new storage.
    pub fn duplicate(&self) -> Result<Buffer> {
        self.duplicate_as(self.like(self.dtype))
    }

    /// As `duplicate`, with a spec of the same type and number of elements.
    pub fn duplicate_as(&self, spec: Spec) -> Result<Buffer> {
        let copy = Buffer::lazy(self.device().clone(), spec)?;
        self.copy_to(&copy)?;
        Ok(copy)
    }

    /// The elements converted to the type of `spec`, in a new storage.
    pub fn convert(&self, spec: Spec) -> Result<Buffer> {
        let dtype = spec.dtype;
        let device = self.device().clone();
        if dtype == self.dtype {
            return self.duplicate_as(spec);
        }
        let driver = self.device().driver()?;
        if !(driver.supports_convert(self.dtype) && driver.supports_convert(dtype)) {
            let bytes = numeric::convert_bytes(self.dtype, dtype, &self.read(0, self.count())?);
            return Buffer::new(device, spec, &bytes);
        }
        let target = Buffer::lazy(device, spec)?;
        if target.count() != self.count() {
            return Err(Error::ShapeMismatch {
                expected: target.count(),
                actual: self.count(),
            });
        }
        let content = self.storage.read();
        if let Some(from) = self.source(&content)? {
            target.overwrite(|to| driver.convert(from, self.dtype, to, dtype))?;
        }
        Ok(target)
    }

    /// Runs `command`, which replaces all bytes of this buffer.
    pub(super) fn overwrite(&self, command: impl FnOnce(Region<'_>) -> Result<()>) -> Result<()> {
        self.modify_under(&mut self.storage.write_at_once(), true, command)
    }

    pub(crate) fn modify_under(
        &self,
        content: &mut Content,
        replaces: bool,
        command: impl FnOnce(Region<'_>) -> Result<()>,
    ) -> Result<()> {
        let device = self.device();
        device.driver()?;
        device.explain(self.storage.modify(content, self.span, replaces, command))
    }

    /// The region to read from; `None` for a buffer of zero bytes.
    pub(crate) fn source<'a>(&self, content: &'a Content) -> Result<Option<Region<'a>>> {
        match content.written() {
            Ok(memory) => Ok(self.storage.region(memory, self.span)),
            // A read of zero bytes needs no written content.
            Err(Error::NotAllocated) if self.span.len == 0 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Allocates the memory of the storage now. It reads as zeros.
    pub fn ensure_allocated(&self) -> Result<()> {
        let device = self.device();
        device.driver()?;
        let (storage, whole) = (&self.storage, Span::whole(self.storage.bytes));
        device.explain(storage.modify(&mut storage.write(), whole, false, |_| Ok(())))
    }

    pub(crate) fn covers_all(&self) -> bool {
        self.span.len == self.storage.bytes
    }
}
