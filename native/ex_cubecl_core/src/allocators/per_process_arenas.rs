//! An arena for each owner: made at its first use, and freed when the owner releases it or has
//! ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::allocators::arena::{Arena, Growth};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::allocation_tracker::{Label, Spec};

pub struct PerProcessArenas {
    device: Arc<Device>,
    spec: Spec,
    max: u64,
    extendable: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    arenas: HashMap<u64, Arc<Arena>>,
    /// The number of arenas that are being made, which happens without the lock.
    making: u64,
    released: bool,
}

impl PerProcessArenas {
    /// Allows at most `max` arenas like `spec` at once.
    pub fn new(
        device: Arc<Device>,
        spec: Spec,
        max: u64,
        extendable: bool,
    ) -> Result<PerProcessArenas> {
        device.driver()?;
        device.check_size(spec.bytes().unwrap_or(u64::MAX))?;
        Ok(PerProcessArenas {
            device,
            spec,
            max,
            extendable: AtomicBool::new(extendable),
            state: Mutex::default(),
        })
    }

    /// The arena of an owner, if it has one.
    pub fn find(&self, owner: u64) -> Result<Option<Arc<Arena>>> {
        let state = self.state.lock();
        if state.released {
            Err(Error::Stale)
        } else {
            Ok(state.arenas.get(&owner).cloned())
        }
    }

    /// The arena of an owner, made if it has none.
    pub fn find_or_create(&self, owner: u64) -> Result<Arc<Arena>> {
        if let Some(arena) = self.find(owner)? {
            return Ok(arena);
        }
        self.count_one_more()?;
        let made = self.make(owner);
        let mut state = self.state.lock();
        state.making -= 1;
        let arena = Arc::new(made?);
        if state.released {
            return Err(Error::Stale);
        }
        state.arenas.insert(owner, arena.clone());
        Ok(arena)
    }

    fn count_one_more(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.arenas.len() as u64 + state.making >= self.max {
            return Err(Error::PoolExhausted { max: self.max });
        }
        state.making += 1;
        Ok(())
    }

    fn make(&self, owner: u64) -> Result<Arena> {
        let label = Label {
            owner,
            ..self.spec.label.clone()
        };
        let spec = Spec {
            label,
            ..self.spec.clone()
        };
        let growth = if self.is_extendable() {
            Growth::Extendable
        } else {
            Growth::Fixed
        };
        Arena::new(self.device.clone(), spec, growth)
    }

    /// Frees the arena of an owner, if it has one.
    pub fn release(&self, owner: u64) {
        let arena = self.state.lock().arenas.remove(&owner);
        if let Some(arena) = arena {
            arena.release();
        }
    }

    /// Frees all arenas. No new ones can be made afterwards.
    pub fn release_all(&self) {
        let arenas = {
            let mut state = self.state.lock();
            state.released = true;
            std::mem::take(&mut state.arenas)
        };
        for arena in arenas.into_values() {
            arena.release();
        }
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub fn is_extendable(&self) -> bool {
        self.extendable.load(Relaxed)
    }

    /// Applies to the arenas of all owners.
    pub fn set_extendable(&self, extendable: bool) {
        self.extendable.store(extendable, Relaxed);
        for arena in self.state.lock().arenas.values() {
            arena.set_extendable(extendable);
        }
    }
}
