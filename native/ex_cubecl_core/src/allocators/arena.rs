//! A stack (bump) allocator: one allocation, in which tensors are placed one after the other. They can be
//! dropped in any order: a dropped tensor is stale at once, and its bytes are reused after all tensors
//! above it were dropped too. Each tensor is its own storage over a part of the arena's memory, so that
//! it is unreadable until written.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::Limits;
use crate::error::{Error, Result};
use crate::failpoints::{Stage, point};
use crate::memory::allocation_tracker::Spec;
use crate::memory::heap::Block;
use crate::memory::meter::Reservation;
use crate::span::Span;
use crate::storage::{Lender, Lent, Memory, Storage, next_id};

/// The smallest number of bytes by which an arena grows.
const GROWTH: u64 = 64 << 10;

/// Up to this many tensors are dropped on the caller's scheduler.
const FEW: usize = 32;

/// How an arena behaves when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    Fixed,
    Extendable,
    /// It allocates nothing and only measures how much memory its tensors would need.
    Measuring,
}

pub struct Arena {
    id: u64,
    device: Arc<Device>,
    /// The initial bytes, and their owner.
    spec: Spec,
    limits: Limits,
    extendable: AtomicBool,
    measuring: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One chunk, and further ones for an arena that grew, in the order of their tensors.
    chunks: Vec<Arc<Chunk>>,
    tensors: Vec<Tensor>,
    window: Option<Arc<Storage>>,
    used: u64,
    peak: u64,
    released: bool,
}

struct Chunk {
    bytes: u64,
    block: Block,
    _reservation: Reservation,
}

impl Lent for Arc<Chunk> {
    fn block(&self) -> Option<&Block> {
        Some(&self.block)
    }
}

/// The location of a tensor. A tensor whose handles were garbage-collected, but that was not dropped,
/// keeps its bytes and those below it until a reset: the memory that an arena needs must not depend on
/// the garbage collector.
struct Tensor {
    /// `None` after the tensor was dropped.
    storage: Option<Weak<Storage>>,
    /// Tensors are in the order of their ids.
    id: u64,
    place: Location,
}

#[derive(Clone, Copy, Default)]
struct Location {
    chunk: usize,
    start: u64,
    end: u64,
}

impl Arena {
    /// An arena of `spec.bytes()` bytes, all of which are allocated now.
    pub fn new(device: Arc<Device>, spec: Spec, growth: Growth) -> Result<Arena> {
        let bytes = spec.bytes().unwrap_or(u64::MAX);
        let limits = device.driver()?.limits();
        device.check_size(bytes)?;
        let arena = Arena {
            id: next_id(),
            device,
            spec,
            limits,
            extendable: AtomicBool::new(growth != Growth::Fixed),
            measuring: growth == Growth::Measuring,
            state: Mutex::default(),
        };
        if bytes > 0 && !arena.measuring {
            let chunk = arena.chunk(bytes)?;
            arena.state.lock().chunks.push(chunk);
        }
        Ok(arena)
    }

    fn lender(&self) -> Lender {
        Lender {
            id: self.id,
            is_shared: false,
        }
    }

    fn chunk(&self, bytes: u64) -> Result<Arc<Chunk>> {
        let mut spec = self.spec.clone();
        spec.shape = Arc::new([bytes]);
        let entry = self.device.record(next_id(), &spec, bytes);
        let (block, reservation) = self.device.alloc(entry)?;
        self.device.driver()?.share(block.page())?;
        Ok(Arc::new(Chunk {
            bytes,
            block,
            _reservation: reservation,
        }))
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        self.state_if(true)
    }

    /// Locks the state; returns `Busy` if that would block and `may_wait` is not set.
    fn state_if(&self, may_wait: bool) -> Result<MutexGuard<'_, State>> {
        let state = if may_wait {
            self.state.lock()
        } else {
            self.state.try_lock().ok_or(Error::Busy)?
        };
        if state.released {
            Err(Error::Stale)
        } else {
            Ok(state)
        }
    }

    /// Places the next tensor. Without `may_wait` it returns `Busy` if that takes new memory, or if another
    /// process holds the lock.
    pub fn alloc(&self, spec: Spec, may_wait: bool) -> Result<Buffer> {
        let mut state = self.state_if(may_wait)?;
        if state.window.is_some() {
            return Err(Error::ArenaInUse { holds: "windows" });
        }
        self.device.driver()?;
        let bytes = spec.bytes().unwrap_or(u64::MAX);
        self.device.check_size(bytes)?;
        let place = self.place(&mut state, bytes, may_wait)?;
        point(Stage::Placing);
        let memory = state.chunks.get(place.chunk).map(|chunk| {
            let room = place.end - place.start;
            Memory::lent(Box::new(chunk.clone()), place.start, room, None)
        });
        let dtype = spec.dtype;
        let storage = Storage::lent(self.device.clone(), spec, bytes, memory, self.lender());
        state.push(&storage, place);
        Ok(Buffer::tensor(storage, Span::whole(bytes), dtype, self.id))
    }

    fn place(&self, state: &mut State, bytes: u64, may_wait: bool) -> Result<Location> {
        let room = bytes.next_multiple_of(self.limits.alignment);
        let top = state.tensors.last().map(|tensor| tensor.place);
        let top = top.unwrap_or_default();
        if self.measuring || bytes == 0 {
            let end = top.end + room;
            return Ok(Location {
                end,
                start: top.end,
                ..top
            });
        }
        let in_chunk = |(index, chunk): (usize, &Arc<Chunk>)| {
            let start = if index == top.chunk { top.end } else { 0 };
            let fits = start + bytes <= chunk.bytes;
            fits.then(|| Location {
                chunk: index,
                start,
                end: (start + room).min(chunk.bytes),
            })
        };
        let later = state.chunks.iter().enumerate().skip(top.chunk);
        if let Some(place) = later.filter_map(in_chunk).next() {
            return Ok(place);
        }
        self.grow(state, bytes, room, may_wait)?;
        let end = room.min(state.chunks.last().map_or(0, |chunk| chunk.bytes));
        Ok(Location {
            chunk: state.chunks.len() - 1,
            start: 0,
            end,
        })
    }

    /// Adds a chunk with room for `bytes`, as large as all existing chunks together if there is memory.
    fn grow(&self, state: &mut State, bytes: u64, room: u64, may_wait: bool) -> Result<()> {
        let capacity = state.capacity();
        if !self.extendable.load(Relaxed) {
            return Err(Error::ArenaFull {
                requested: bytes,
                used: state.used,
                capacity,
            });
        }
        if !may_wait {
            return Err(Error::Busy);
        }
        let least = room.min(self.limits.max_page);
        let doubled = capacity
            .max(GROWTH)
            .clamp(least, self.limits.max_page.max(least));
        let chunk = match self.chunk(doubled) {
            Err(Error::LimitExceeded { .. } | Error::OutOfMemory { .. }) => self.chunk(least),
            other => other,
        };
        state.chunks.push(chunk?);
        Ok(())
    }

    /// Drops all of the tensors, in any order, or none of them: their handles become stale, and their bytes
    /// are free as soon as all tensors above them are dropped too. Without `may_wait` it returns `Busy` if
    /// a call of another process uses one of them, or if there are more than `FEW`.
    pub fn drop_tensors(&self, tensors: &[&Buffer], may_wait: bool) -> Result<()> {
        let mut state = self.state_if(may_wait)?;
        let mut indices = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            self.check_own(tensor)?;
            let index = state.index_of(tensor.storage().id);
            indices.push(index.ok_or(Error::Stale)?);
        }
        indices.sort_unstable();
        indices.dedup();
        if may_wait {
            state.end(&indices);
        } else if !state.try_end(&indices) {
            return Err(Error::Busy);
        }
        state.free_top();
        Ok(())
    }

    fn check_own(&self, tensor: &Buffer) -> Result<()> {
        if tensor.lender() != Some(self.lender()) {
            return Err(Error::Foreign);
        }
        if tensor.bytes() == tensor.total_bytes() {
            Ok(())
        } else {
            Err(Error::NotRoot)
        }
    }

    /// A window: the elements from `offset` on of the whole arena, which must hold no tensors. Windows
    /// allocate nothing and may overlap.
    pub fn reshape(&self, spec: Spec, offset: u64) -> Result<Buffer> {
        let mut state = self.state()?;
        if !state.tensors.is_empty() {
            return Err(Error::ArenaInUse { holds: "tensors" });
        }
        self.device.driver()?;
        let (size, count) = (spec.dtype.size(), spec.count().unwrap_or(u64::MAX));
        let end = offset
            .checked_add(count)
            .and_then(|end| end.checked_mul(size));
        let end = end.unwrap_or(u64::MAX);
        self.device.check_size(end)?;
        let storage = match &state.window {
            Some(storage) => storage.clone(),
            None => self.open_window(&mut state, end)?,
        };
        state.peak = state.peak.max(end);
        let span = Span::whole(storage.bytes).narrow(offset, count, size)?;
        Ok(Buffer::tensor(storage, span, spec.dtype, self.id))
    }

    /// The storage that all windows share, over one chunk that has all of the arena's bytes.
    fn open_window(&self, state: &mut State, end: u64) -> Result<Arc<Storage>> {
        let bytes = if self.measuring {
            end
        } else {
            self.join(state, end)?;
            state.capacity()
        };
        let memory = state
            .chunks
            .first()
            .map(|chunk| Memory::lent(Box::new(chunk.clone()), 0, chunk.bytes, None));
        let mut spec = self.spec.clone();
        spec.shape = Arc::new([bytes]);
        let storage = Storage::lent(self.device.clone(), spec, bytes, memory, self.lender());
        // A measuring arena has no size, so each of its windows has its own storage.
        state.window = (!self.measuring).then(|| storage.clone());
        Ok(storage)
    }

    /// Replaces the chunks of an empty arena with one chunk of at least `bytes`.
    fn join(&self, state: &mut State, bytes: u64) -> Result<()> {
        let capacity = state.capacity();
        if bytes > capacity && !self.extendable.load(Relaxed) {
            return Err(Error::ArenaFull {
                requested: bytes,
                used: 0,
                capacity,
            });
        }
        let wanted = bytes.max(capacity).min(self.limits.max_page).max(bytes);
        if state.chunks.len() == 1 && bytes <= capacity || wanted == 0 {
            return Ok(());
        }
        state.chunks.clear();
        let chunk = self.chunk(wanted)?;
        state.chunks.push(chunk);
        Ok(())
    }

    /// Makes all tensors and windows stale, and keeps the memory.
    pub fn reset(&self) -> Result<()> {
        let mut state = self.state()?;
        state.clear();
        if state.chunks.len() > 1 {
            // If the joined chunk cannot be allocated now, it is allocated when it is needed.
            let _ = self.join(&mut state, 0);
        }
        Ok(())
    }

    /// Makes all tensors and windows stale, and frees the memory. A second call does nothing.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.clear();
        state.chunks.clear();
        state.released = true;
    }

    /// Bytes in use, including padding and dropped tensors below one that is not dropped. While there are
    /// windows, all bytes are in use.
    pub fn used(&self) -> Result<u64> {
        let state = self.state()?;
        Ok(match state.window {
            Some(_) => state.capacity(),
            None => state.used,
        })
    }

    pub fn capacity(&self) -> Result<u64> {
        Ok(self.state()?.capacity())
    }

    /// The most bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.state.lock().peak
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub fn is_extendable(&self) -> bool {
        self.extendable.load(Relaxed)
    }

    pub fn set_extendable(&self, extendable: bool) {
        self.extendable.store(extendable, Relaxed);
    }
}

impl State {
    fn capacity(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    fn push(&mut self, storage: &Arc<Storage>, place: Location) {
        self.tensors.push(Tensor {
            storage: Some(Arc::downgrade(storage)),
            id: storage.id,
            place,
        });
        self.used += place.end - place.start;
        self.peak = self.peak.max(self.used);
    }

    /// The index of a tensor that was not dropped.
    fn index_of(&self, id: u64) -> Option<usize> {
        let found = self.tensors.binary_search_by_key(&id, |tensor| tensor.id);
        found.ok().filter(|at| self.tensors[*at].storage.is_some())
    }

    fn storages(&self, indices: &[usize]) -> Vec<Arc<Storage>> {
        let storages = indices.iter().map(|at| self.tensors[*at].storage.as_ref());
        storages.flatten().filter_map(Weak::upgrade).collect()
    }

    /// As `end`, without blocking: returns `false` if a tensor is in use or there are more than `FEW`.
    fn try_end(&mut self, indices: &[usize]) -> bool {
        if indices.len() > FEW {
            return false;
        }
        let storages = self.storages(indices);
        let locks: Option<Vec<_>> = storages.iter().map(|storage| storage.try_write()).collect();
        let Some(locks) = locks else {
            return false;
        };
        for (storage, mut content) in storages.iter().zip(locks) {
            storage.end_under(&mut content);
        }
        self.forget(indices);
        true
    }

    /// Makes tensors stale. It waits for calls that are using them.
    fn end(&mut self, indices: &[usize]) {
        for storage in self.storages(indices) {
            storage.end();
        }
        self.forget(indices);
    }

    fn forget(&mut self, indices: &[usize]) {
        for at in indices {
            self.tensors[*at].storage = None;
        }
    }

    /// Frees the bytes of dropped tensors that have no tensor above them.
    fn free_top(&mut self) {
        while let Some(top) = self.tensors.pop_if(|top| top.storage.is_none()) {
            self.used -= top.place.end - top.place.start;
        }
    }

    fn clear(&mut self) {
        let all: Vec<usize> = (0..self.tensors.len()).collect();
        self.end(&all);
        self.free_top();
        if let Some(window) = self.window.take() {
            window.end();
        }
    }
}
