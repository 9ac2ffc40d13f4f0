//! The pools that all processes share: one for each device, size and persistence. Their number is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::allocators::pool::{Pool, Stats};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::device_id::DeviceId;
use crate::error::{Error, Result};
use crate::memory::allocation_tracker::Spec;

/// The number of pools that are kept. Beyond it, the least recently used pools that have no buffer
/// checked out are dropped, with the memory they keep.
const MOST: usize = 256;

/// Generation of the device, bytes, whether the buffers are persistent.
type Key = (u64, u64, bool);

struct Entry {
    pool: Arc<Pool>,
    last_used: u64,
}

/// BEAM schedulers take this lock: no pool is made or dropped while it is held.
static POOLS: Mutex<Pools> = Mutex::new(Pools {
    entries: None,
    uses: 0,
});

struct Pools {
    /// `None` before the first pool.
    entries: Option<HashMap<Key, Entry>>,
    uses: u64,
}

impl Pools {
    fn find(&mut self, key: Key) -> Option<Arc<Pool>> {
        self.uses += 1;
        let entry = self.entries.as_mut()?.get_mut(&key)?;
        entry.last_used = self.uses;
        Some(entry.pool.clone())
    }

    /// Adds a pool, and removes and returns the pools that the caller drops after releasing the lock.
    fn insert(&mut self, key: Key, pool: Arc<Pool>) -> Vec<Arc<Pool>> {
        let mut dropped = self.take_out_lost();
        let entries = self.entries.get_or_insert_default();
        let excess = (entries.len() + 1).saturating_sub(MOST);
        if excess > 0 {
            let idle = entries.iter().filter(|entry| entry.1.pool.is_idle());
            let mut idle: Vec<_> = idle.map(|(key, entry)| (entry.last_used, *key)).collect();
            idle.sort_unstable();
            let oldest = idle.into_iter().take(excess);
            dropped.extend(oldest.filter_map(|(_, key)| Some(entries.remove(&key)?.pool)));
        }
        let last_used = self.uses;
        entries.insert(key, Entry { pool, last_used });
        dropped
    }

    fn take_out_lost(&mut self) -> Vec<Arc<Pool>> {
        let entries = self.entries.get_or_insert_default();
        let lost = entries.extract_if(|_, entry| entry.pool.device().is_lost());
        lost.map(|(_, entry)| entry.pool).collect()
    }
}

fn key(device: &Device, spec: &Spec) -> Key {
    let bytes = spec.bytes().unwrap_or(u64::MAX);
    (device.generation, bytes, spec.persistent)
}

/// An idle or a new buffer like `spec`, of a pool that keeps at most `max`.
pub fn get(device: &Arc<Device>, spec: &Spec, max: u64) -> Result<Buffer> {
    find_or_create(device, spec, max)?.check_out_as(spec)
}

/// As `get`, without blocking: returns `None` if there is no idle buffer or another thread holds the lock.
pub fn try_get(device: &Device, spec: &Spec, max: u64) -> Result<Option<Buffer>> {
    match try_find(device, spec, max) {
        Some(pool) => pool.take_as(spec),
        None => Ok(None),
    }
}

/// The shared pool of a device for buffers with as many bytes as `spec`. Their type and owner are those of each caller.
pub fn find_or_create(device: &Arc<Device>, spec: &Spec, max: u64) -> Result<Arc<Pool>> {
    let key = key(device, spec);
    let found = POOLS.lock().find(key);
    if let Some(pool) = found {
        pool.set_max(max);
        return Ok(pool);
    }
    let made = Pool::shared(device.clone(), spec.clone(), max)?;
    let (pool, dropped) = {
        let mut pools = POOLS.lock();
        match pools.find(key) {
            // Another thread has added the pool meanwhile.
            Some(pool) => (pool, vec![made]),
            None => {
                let dropped = pools.insert(key, made.clone());
                (made, dropped)
            }
        }
    };
    drop(dropped);
    Ok(pool)
}

fn try_find(device: &Device, spec: &Spec, max: u64) -> Option<Arc<Pool>> {
    let pool = POOLS.try_lock()?.find(key(device, spec))?;
    pool.set_max(max);
    Some(pool)
}

/// Drops the pools of lost devices, which would keep those devices alive.
pub(crate) fn forget_lost() {
    let lost = POOLS.lock().take_out_lost();
    drop(lost);
}

/// Returns a buffer to the shared pool that it came from.
pub fn check_in(buffer: &Buffer, wait: bool) -> Result<()> {
    match buffer.lender() {
        Some(lender) if lender.is_shared => {
            buffer.give_back(wait)?;
            buffer.device().driver().map(|_| ())
        }
        _ => {
            buffer.device().driver()?;
            Err(Error::Foreign)
        }
    }
}

/// For each shared pool: device, bytes of each buffer, whether the buffers are persistent, and its stats.
pub fn stats() -> Vec<(DeviceId, u64, bool, Stats)> {
    let pools: Vec<_> = {
        let pools = POOLS.lock();
        let entries = pools.entries.iter().flatten();
        entries
            .map(|(key, entry)| (*key, entry.pool.clone()))
            .collect()
    };
    let open = pools.iter().filter(|(_, pool)| !pool.device().is_lost());
    open.map(|((_, bytes, persistent), pool)| {
        (pool.device().id(), *bytes, *persistent, pool.stats())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::memory::allocation_tracker::Label;
    use crate::testing::host_device;

    fn spec(bytes: u64) -> Spec {
        (DType::U8, bytes).into()
    }

    /// The pools are those of the process: one test makes others forget theirs.
    static ALONE: Mutex<()> = Mutex::new(());

    /// What is there once no other test holds the lock of the pools, as it may for a moment.
    fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            match look() {
                Some(found) => return found,
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn pools_of_many_sizes_are_forgotten_the_oldest_first_and_never_one_that_is_held() {
        let _alone = ALONE.lock();
        let device = host_device();
        let held = find_or_create(&device, &spec(70_000), 2).unwrap();
        let buffer = held.check_out(&Default::default()).unwrap();
        buffer.fill(7).unwrap();
        let mut gone = Vec::new();
        for bytes in 1..=3 * MOST as u64 {
            let pool = find_or_create(&device, &spec(bytes), 2).unwrap();
            let kept = pool.check_out(&Default::default()).unwrap();
            check_in(&kept, true).unwrap();
            gone.push(Arc::downgrade(&pool));
            let found = find_or_create(&device, &spec(70_000), 2).unwrap();
            assert!(Arc::ptr_eq(&found, &held));
        }
        assert!(stats().len() <= MOST);
        assert!(POOLS.lock().find(key(&device, &spec(1))).is_none());
        // Dropping the pools freed the memory they kept.
        assert!(gone[..MOST].iter().all(|pool| pool.upgrade().is_none()));
        assert_eq!(buffer.read(0, 3).unwrap()[..], [7; 3]);
        assert_eq!(check_in(&buffer, true), Ok(()));
        assert_eq!(check_in(&buffer, true), Err(Error::Stale));
        assert_eq!(held.stats().available, 1);
        // A scheduler does not wait for another thread that holds the lock.
        let looking = POOLS.lock();
        assert!(try_find(&device, &spec(70_000), 2).is_none());
        drop(looking);
        soon(|| try_find(&device, &spec(70_000), 2));
    }

    #[test]
    fn a_buffer_has_the_type_and_the_tag_that_its_caller_asks_for() {
        let _alone = ALONE.lock();
        let device = host_device();
        let label = Label {
            tag: Some(b"first"[..].into()),
            ..Label::default()
        };
        let floats = Spec {
            label,
            ..(DType::F32, 20_000).into()
        };
        let first = get(&device, &floats, 2).unwrap();
        check_in(&first, true).unwrap();
        let taken = soon(|| try_get(&device, &spec(80_000), 2).unwrap());
        let made = get(&device, &spec(80_000), 2).unwrap();
        for buffer in [&taken, &made] {
            assert_eq!((buffer.dtype(), buffer.count()), (DType::U8, 80_000));
            assert_eq!(buffer.label().tag, None);
        }
        assert_eq!(get(&device, &floats, 3).unwrap().dtype(), DType::F32);
    }
}
