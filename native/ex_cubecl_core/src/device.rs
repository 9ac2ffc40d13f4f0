//! An open device: its driver, its meter, its heaps and its threads.

use std::collections::HashSet;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::device_id::DeviceId;
use crate::driver::{Driver, Info, Timing};
use crate::error::{Error, Result};
use crate::failpoints::{Stage, point};
use crate::memory::allocation_tracker::{Record, Report, Spec};
use crate::memory::heap::{Block, Heap, PageInfo, Use};
use crate::memory::meter::{Meter, Reservation, Usage};
use crate::threads::worker::Worker;

/// Holds unused memory that it can free on request, such as a pool.
pub(crate) trait Reclaim: Send + Sync {
    fn reclaim(&self);
}

/// An open device. It lives until it is lost and its last buffer is dropped.
pub struct Device {
    pub info: Info,
    /// Distinguishes this device from an earlier one of the same id that was lost.
    pub generation: u64,
    /// `None` only while the device is dropped.
    driver: Option<Arc<dyn Driver>>,
    /// Set by `reset`. The next generation of the device uses the same driver.
    retired: AtomicBool,
    meter: Arc<Meter>,
    heap: Arc<Heap>,
    /// For long-lived buffers, so that they do not keep the slabs of short-lived ones from being freed.
    persistent: Arc<Heap>,
    reclaimers: Mutex<Vec<Weak<dyn Reclaim>>>,
    worker: Worker,
}

impl Device {
    /// A device that is not in the registry.
    pub fn new(info: Info, driver: Arc<dyn Driver>, limit: Option<u64>) -> Arc<Self> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        Arc::new(Device {
            generation: GENERATIONS.fetch_add(1, Relaxed),
            heap: Heap::new(driver.limits()),
            persistent: Heap::new(driver.limits()),
            reclaimers: Mutex::default(),
            meter: Meter::new(limit),
            worker: Worker::new(info.id.to_string()),
            retired: AtomicBool::new(false),
            driver: Some(driver),
            info,
        })
    }

    pub fn is_lost(&self) -> bool {
        let driver = self.driver.as_ref();
        self.retired.load(Acquire) || driver.is_none_or(|driver| driver.is_lost())
    }

    pub fn id(&self) -> DeviceId {
        self.info.id
    }

    /// The driver, unless the device was lost: the driver of a lost device is never called again.
    pub fn driver(&self) -> Result<&dyn Driver> {
        match &self.driver {
            Some(driver) if !self.is_lost() => Ok(&**driver),
            _ => Err(Error::DeviceLost { device: self.id() }),
        }
    }

    /// Turns a driver error into `DeviceLost` if the device was lost during the call.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Driver { .. } | Error::OutOfMemory { .. }) if self.is_lost() => {
                Err(Error::DeviceLost { device: self.id() })
            }
            // The driver may have been opened for another logical device, which the error then names.
            Err(error) => Err(error.on(self.id())),
            done => done,
        }
    }

    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The tracker record of a storage.
    pub(crate) fn record(&self, id: u64, spec: &Spec, bytes: u64) -> Record {
        Record {
            id,
            device: self.id(),
            bytes,
            spec: spec.clone(),
            since: Instant::now(),
            location: None,
        }
    }

    /// Allocates and counts the memory of a record. The limit is checked first, so that an allocation
    /// that exceeds it never reaches the device.
    pub(crate) fn alloc(&self, record: Record) -> Result<(Block, Reservation)> {
        let driver = self.driver()?;
        let bytes = record.bytes;
        self.check_size(bytes)?;
        let heap = if record.spec.persistent {
            &self.persistent
        } else {
            &self.heap
        };
        let reservation = self.reserve(record)?;
        point(Stage::Reserved);
        let block = heap.alloc(driver, bytes).or_else(|error| {
            if !matches!(error, Error::OutOfMemory { .. }) {
                return Err(error);
            }
            self.release_cached()?;
            heap.alloc(driver, bytes)
        });
        let block = self.explain(block)?;
        point(Stage::Allocated);
        reservation.set_location(block.location());
        Ok((block, reservation))
    }

    /// As `alloc`, but returns `None` if it would wait for the device, or would fail.
    pub(crate) fn try_alloc(&self, record: Record) -> Option<(Block, Reservation)> {
        let bytes = record.bytes;
        if record.spec.persistent {
            return None;
        }
        let reservation = self.meter.reserve(record).ok()?;
        let block = self.heap.try_alloc(bytes)?;
        reservation.set_location(block.location());
        Some((block, reservation))
    }

    pub(crate) fn check_size(&self, bytes: u64) -> Result<()> {
        let limit = self.driver()?.limits().max_page;
        if bytes > limit {
            Err(Error::TooLarge {
                requested: bytes,
                limit,
                device: self.id(),
            })
        } else {
            Ok(())
        }
    }

    pub(crate) fn reserve(&self, record: Record) -> Result<Reservation> {
        let bytes = record.bytes;
        self.meter
            .reserve(record)
            .map_err(|refused| Error::LimitExceeded {
                requested: bytes,
                live: refused.live,
                limit: refused.limit,
                device: self.id(),
            })
    }

    /// The usage of the device, and the bytes that its runtime holds for it.
    pub fn usage(&self) -> Result<(Usage, u64)> {
        let reserved = self.driver().and_then(|driver| driver.reserved());
        Ok((self.meter.usage(), self.explain(reserved)?))
    }

    /// The usage of the device, without calling its driver.
    pub fn account(&self) -> Usage {
        self.meter.usage()
    }

    /// The `most` largest allocations, and the sums of all.
    pub fn report(&self, most: usize) -> Report {
        self.meter.report(most)
    }

    /// The pages of the device and the `most` largest allocations on them.
    pub fn map(&self, most: usize) -> (Vec<PageInfo>, Vec<Record>) {
        let records = self.meter.report(most).largest;
        let mut pages = self.heap.pages();
        pages.extend(self.persistent.pages());
        let known: HashSet<u64> = pages.iter().map(|page| page.page).collect();
        let locations = records.iter().filter_map(|record| record.location);
        let own = locations.filter(|location| !known.contains(&location.page));
        pages.extend(own.map(|location| PageInfo {
            page: location.page,
            bytes: location.page_bytes,
            used: location.page_bytes,
            kind: Use::Dedicated,
        }));
        (pages, records)
    }

    /// Counts an allocation that failed and is not retried.
    pub fn count_failure(&self) {
        self.meter.count_failure();
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.meter.set_limit(limit);
    }

    pub fn reset_peak(&self) {
        self.meter.reset_peak();
    }

    /// Registers a holder of unused memory, which `trim` and `reclaim` ask to free it.
    pub(crate) fn add_reclaimer(&self, reclaimer: Weak<dyn Reclaim>) {
        let mut reclaimers = self.reclaimers.lock();
        reclaimers.retain(|known| known.strong_count() > 0);
        reclaimers.push(reclaimer);
    }

    fn release_cached(&self) -> Result<()> {
        let driver = self.driver()?;
        self.persistent.trim(driver)?;
        self.heap.trim(driver)
    }

    /// Gives unused memory back to the driver, and returns how many bytes it gave back.
    pub fn trim(&self) -> Result<u64> {
        let driver = self.driver()?;
        let before = driver.reserved()?;
        let reclaimers = self.reclaimers.lock().clone();
        for reclaimer in reclaimers.iter().filter_map(Weak::upgrade) {
            reclaimer.reclaim();
        }
        self.release_cached()?;
        Ok(before.saturating_sub(driver.reserved()?))
    }

    /// As `trim`, for an allocation that does not fit. The meter counts it.
    pub fn reclaim(&self) -> Result<u64> {
        self.meter.count_reclaim();
        self.trim()
    }

    /// Marks the device as lost. Calls on its buffers then return `DeviceLost`.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Release);
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.meter.limit()
    }

    /// The driver, lost or not, for another device on the same adapter.
    pub(crate) fn shared_driver(&self) -> Option<Arc<dyn Driver>> {
        self.driver.clone()
    }

    pub fn start_timing(&self) -> Result<u64> {
        self.explain(self.driver().and_then(|driver| driver.start_timing()))
    }

    pub fn stop_timing(&self, number: u64) -> Result<Timing> {
        self.explain(self.driver().and_then(|driver| driver.stop_timing(number)))
    }

    pub fn synchronize(&self) -> Result<()> {
        self.explain(self.driver().and_then(|driver| driver.sync()))
    }
}

/// The last reference can be dropped by a destructor on a BEAM scheduler, and closing a driver waits
/// for its device: the device's worker thread closes it instead.
impl Drop for Device {
    fn drop(&mut self) {
        let driver = self.driver.take();
        let Some(limits) = driver.as_ref().map(|driver| driver.limits()) else {
            return;
        };
        let pages = std::mem::replace(&mut self.heap, Heap::new(limits));
        let persistent = std::mem::replace(&mut self.persistent, Heap::new(limits));
        let _ = self.worker.run(move || drop((pages, persistent, driver)));
    }
}
