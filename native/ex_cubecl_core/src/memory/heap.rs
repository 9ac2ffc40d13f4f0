//! Sub-allocation on top of exact pages. Small blocks come from slabs in constant time, large
//! blocks have a dedicated page; a freed page is kept for the next block of its size.
//!
//! The lock of a heap is never held during a call of the driver, because destructors on normal
//! schedulers take it too.

use std::collections::BTreeSet;
use std::sync::Arc;

use offset_allocator::{Allocation, Allocator};
use parking_lot::Mutex;

use crate::driver::{Driver, Limits, Page};
use crate::error::Result;
use crate::memory::allocation_tracker;

/// Every block starts at a multiple of this, which suits each device's binding alignment.
const UNIT: u64 = 256;
const MIB: u64 = 1 << 20;
const FIRST_SLAB: u64 = MIB;
/// Idle pages kept for reuse, per device.
const IDLE_BYTES: u64 = 256 * MIB;
/// CubeCL 0.10 counts pages in 16 bits and hands out aliases past them.
const MAX_PAGES: usize = 60_000;

/// Where a block lies, and how it is freed.
enum Placement {
    Slab { slab: usize, slot: Allocation },
    Dedicated,
}

/// A piece of device memory. Dropping it returns it to the heap at once.
pub struct Block {
    heap: Arc<Heap>,
    page: Arc<Page>,
    placement: Placement,
    pub offset: u64,
    /// The size of the block in bytes, including padding.
    pub room: u64,
}

impl Block {
    pub fn page(&self) -> &Page {
        &self.page
    }

    pub fn location(&self) -> allocation_tracker::Location {
        allocation_tracker::Location {
            page: key(&self.page),
            page_bytes: self.page.bytes,
            offset: self.offset,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.heap.take_back(self);
    }
}

/// Identifies a page by its address, which is unique among live pages.
fn key(page: &Arc<Page>) -> u64 {
    Arc::as_ptr(page) as u64
}

/// What a page is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Divided among many blocks.
    Slab,
    /// Dedicated to one block.
    Dedicated,
    /// Kept for the next block of its size.
    Idle,
}

/// One page of a heap.
#[derive(Debug, Clone, Copy)]
pub struct PageInfo {
    pub page: u64,
    pub bytes: u64,
    /// Bytes of its blocks, including padding.
    pub used: u64,
    pub kind: Use,
}

pub struct Heap {
    limits: Limits,
    own_from: u64,
    largest_slab: u64,
    state: Mutex<State>,
}

struct Slab {
    page: Arc<Page>,
    space: Allocator,
    units: u32,
    used: u32,
    /// The key under which `State::roomy` lists this slab.
    largest: u32,
}

#[derive(Default)]
struct State {
    slabs: Vec<Option<Slab>>,
    /// Slabs by their largest free piece in units: the first that fits is found in O(log n).
    roomy: BTreeSet<(u32, usize)>,
    slab_bytes: u64,
    idle: Vec<Arc<Page>>,
    idle_bytes: u64,
    dedicated_pages: usize,
    /// Whether idle pages were dropped since the driver last released unused pages.
    untrimmed: bool,
}

impl Heap {
    pub fn new(limits: Limits) -> Arc<Self> {
        let own_from = (limits.max_page / 128).clamp(MIB, 16 * MIB);
        Arc::new(Heap {
            limits,
            own_from,
            largest_slab: 4 * own_from,
            state: Mutex::default(),
        })
    }

    /// Allocates a block of at least `bytes`, which the caller has checked against
    /// `Limits::max_page`.
    pub fn alloc(self: &Arc<Self>, driver: &dyn Driver, bytes: u64) -> Result<Block> {
        let room = bytes.next_multiple_of(UNIT);
        self.trim_if_due(driver)?;
        if room < self.own_from {
            self.alloc_small(driver, room)
        } else {
            self.alloc_own(driver, room)
        }
    }

    /// Allocates a block from an existing slab, without blocking: returns `None` if that is not
    /// possible.
    pub fn try_alloc(self: &Arc<Self>, bytes: u64) -> Option<Block> {
        let room = bytes.next_multiple_of(UNIT);
        if room < self.own_from {
            self.place_in_slab(&mut *self.state.try_lock()?, room)
        } else {
            None
        }
    }

    fn alloc_small(self: &Arc<Self>, driver: &dyn Driver, room: u64) -> Result<Block> {
        loop {
            let wanted = {
                let mut state = self.state.lock();
                if let Some(block) = self.place_in_slab(&mut state, room) {
                    return Ok(block);
                }
                let doubled = state.slab_bytes.clamp(FIRST_SLAB, self.largest_slab);
                // The sub-allocator rounds sizes: it could not allocate the whole of a slab whose
                // size is not a power of two, and this loop would not end.
                doubled.max(room).next_power_of_two()
            };
            let page = Arc::new(driver.alloc(wanted)?);
            driver.share(&page)?;
            self.state.lock().add_slab(page);
        }
    }

    fn place_in_slab(self: &Arc<Self>, state: &mut State, room: u64) -> Option<Block> {
        let units = (room / UNIT) as u32;
        let candidates: Vec<usize> = state
            .roomy
            .range((units, 0)..)
            .take(4)
            .map(|key| key.1)
            .collect();
        for index in candidates {
            let slab = state.slabs[index].as_mut()?;
            let Some(slot) = slab.space.allocate(units) else {
                continue;
            };
            slab.used += units;
            let block = Block {
                heap: self.clone(),
                page: slab.page.clone(),
                placement: Placement::Slab { slab: index, slot },
                offset: u64::from(slot.offset) * UNIT,
                room,
            };
            state.list_again(index);
            return Some(block);
        }
        None
    }

    fn alloc_own(self: &Arc<Self>, driver: &dyn Driver, room: u64) -> Result<Block> {
        let reused = self.state.lock().take_idle(room);
        let page = match reused {
            Some(page) => page,
            None => {
                if self.state.lock().dedicated_pages >= MAX_PAGES {
                    return Err(crate::error::Error::driver(
                        "too many pages are live on this device",
                    ));
                }
                let page = Arc::new(driver.alloc(room.min(self.limits.max_page))?);
                self.state.lock().dedicated_pages += 1;
                page
            }
        };
        Ok(Block {
            heap: self.clone(),
            page,
            placement: Placement::Dedicated,
            offset: 0,
            room,
        })
    }

    fn take_back(&self, block: &Block) {
        let mut state = self.state.lock();
        match block.placement {
            Placement::Slab { slab, slot } => state.free_slot(slab, slot, block.room),
            Placement::Dedicated => state.keep_idle(block.page.clone()),
        }
    }

    fn trim_if_due(&self, driver: &dyn Driver) -> Result<()> {
        if std::mem::take(&mut self.state.lock().untrimmed) {
            driver.release_pages()
        } else {
            Ok(())
        }
    }

    /// Gives idle pages and empty slabs back to the driver.
    pub fn trim(&self, driver: &dyn Driver) -> Result<()> {
        let released = self.state.lock().release_idle();
        drop(released);
        driver.trim()
    }

    /// Its slabs and idle pages. Dedicated pages are not listed: their blocks refer to them.
    pub fn pages(&self) -> Vec<PageInfo> {
        let state = self.state.lock();
        let slabs = state.slabs.iter().flatten().map(|slab| PageInfo {
            page: key(&slab.page),
            bytes: slab.page.bytes,
            used: u64::from(slab.used) * UNIT,
            kind: Use::Slab,
        });
        let idle = state.idle.iter().map(|page| PageInfo {
            page: key(page),
            bytes: page.bytes,
            used: 0,
            kind: Use::Idle,
        });
        slabs.chain(idle).collect()
    }

    /// Bytes that the next `trim` would free.
    pub fn idle_bytes(&self) -> u64 {
        let state = self.state.lock();
        let empty = state.slabs.iter().flatten().filter(|slab| slab.used == 0);
        state.idle_bytes + empty.map(|slab| slab.page.bytes).sum::<u64>()
    }
}

impl State {
    fn add_slab(&mut self, page: Arc<Page>) {
        let units = (page.bytes / UNIT) as u32;
        self.slab_bytes += page.bytes;
        let slab = Slab {
            // Two nodes for each block and gap; a slab that runs out of nodes counts as full.
            space: Allocator::with_max_allocs(units, (2 * units).clamp(64, 65_536)),
            page,
            units,
            used: 0,
            largest: 0,
        };
        let index = self
            .slabs
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slabs.len());
        if index < self.slabs.len() {
            self.slabs[index] = Some(slab)
        } else {
            self.slabs.push(Some(slab))
        }
        self.list_again(index);
    }

    fn list_again(&mut self, index: usize) {
        if let Some(slab) = self.slabs[index].as_mut() {
            self.roomy.remove(&(slab.largest, index));
            slab.largest = slab.space.storage_report().largest_free_region;
            self.roomy.insert((slab.largest, index));
        }
    }

    fn free_slot(&mut self, index: usize, slot: Allocation, room: u64) {
        if let Some(slab) = self.slabs[index].as_mut() {
            slab.space.free(slot);
            slab.used -= (room / UNIT) as u32;
            self.list_again(index);
        }
    }

    fn take_idle(&mut self, room: u64) -> Option<Arc<Page>> {
        let index = self.idle.iter().rposition(|page| page.bytes == room)?;
        let page = self.idle.remove(index);
        self.idle_bytes -= page.bytes;
        Some(page)
    }

    /// Keeps a page for reuse and drops the oldest idle pages beyond `IDLE_BYTES`: the page that
    /// was used last is the most likely to be requested again.
    fn keep_idle(&mut self, page: Arc<Page>) {
        self.idle_bytes += page.bytes;
        self.idle.push(page);
        let mut excess = 0;
        while self.idle_bytes > IDLE_BYTES {
            self.idle_bytes -= self.idle[excess].bytes;
            excess += 1;
        }
        if excess > 0 {
            self.idle.drain(..excess);
            self.dedicated_pages -= excess;
            self.untrimmed = true;
        }
    }

    /// Returns the idle pages. The caller drops them outside the lock.
    fn release_idle(&mut self) -> Vec<Arc<Page>> {
        let mut released = std::mem::take(&mut self.idle);
        self.dedicated_pages -= released.len();
        self.idle_bytes = 0;
        for index in 0..self.slabs.len() {
            if let Some(slab) = self.slabs[index].take_if(|slab| slab.used == 0) {
                self.roomy.remove(&(slab.largest, index));
                self.slab_bytes -= u64::from(slab.units) * UNIT;
                released.push(slab.page);
            }
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::HostDriver;

    #[test]
    fn blocks_of_every_size_have_a_place_also_on_a_large_device() {
        let driver = HostDriver;
        for max_page in [128 * MIB, 4096 * MIB] {
            let limits = Limits {
                max_page,
                ..driver.limits()
            };
            let heap = Heap::new(limits);
            let sizes = [
                1,
                255,
                256,
                257,
                MIB - 1,
                MIB,
                3 * MIB + 7,
                10 * MIB + 300_000,
                16 * MIB - 1,
            ];
            for bytes in sizes {
                let block = heap.alloc(&driver, bytes).unwrap();
                assert!(block.room >= bytes && block.offset.is_multiple_of(UNIT));
                assert!(block.offset + block.room <= block.page().bytes);
            }
            heap.trim(&driver).unwrap();
            assert_eq!(heap.idle_bytes(), 0);
        }
    }

    #[test]
    fn a_page_that_was_used_last_is_kept_whatever_lay_idle_before() {
        let driver = HostDriver;
        let heap = Heap::new(driver.limits());
        let old: Vec<Block> = (0..4)
            .map(|_| heap.alloc(&driver, 63 * MIB).unwrap())
            .collect();
        drop(old);
        let page = |block: &Block| std::ptr::from_ref(block.page()) as usize;
        let large = heap.alloc(&driver, 100 * MIB).unwrap();
        let place = page(&large);
        drop(large);
        assert!(heap.idle_bytes() <= IDLE_BYTES);
        assert_eq!(page(&heap.alloc(&driver, 100 * MIB).unwrap()), place);
    }

    #[test]
    fn live_blocks_never_overlap_and_freed_ones_are_used_again() {
        let driver = HostDriver;
        let heap = Heap::new(driver.limits());
        let mut live: Vec<Block> = Vec::new();
        for step in 0..3_000u64 {
            if step % 3 == 2 {
                live.swap_remove((step * 7919) as usize % live.len());
            }
            live.push(heap.alloc(&driver, 1 + step * 104_729 % 9_000).unwrap());
        }
        let mut places: Vec<_> = live
            .iter()
            .map(|block| {
                (
                    std::ptr::from_ref(block.page()) as usize,
                    block.offset,
                    block.room,
                )
            })
            .collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[0].1 + pair[0].2 <= pair[1].1);
        }
        let used: u64 = live.iter().map(|block| block.room).sum();
        assert!(heap.state.lock().slab_bytes < 2 * used + 2 * MIB);
    }
}
