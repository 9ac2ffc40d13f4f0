//! Exact counts of the live allocations of a device: each allocation holds a [`Reservation`] whose
//! `Drop` subtracts it again, so that a count cannot leak. The numbers are read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::memory::allocation_tracker::{AllocationTracker, Location, Record, Report};
use crate::memory::watcher;

const NO_LIMIT: u64 = u64::MAX;

#[derive(Debug)]
pub struct Meter {
    live_bytes: AtomicU64,
    live_buffers: AtomicU64,
    peak_bytes: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
    failed: AtomicU64,
    reclaims: AtomicU64,
    limit: AtomicU64,
    tracker: AllocationTracker,
}

/// A snapshot of a [`Meter`]. Each number is exact, but they are not read at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub live_bytes: u64,
    pub live_buffers: u64,
    pub peak_bytes: u64,
    pub allocations: u64,
    pub frees: u64,
    pub failed: u64,
    pub reclaims: u64,
    pub limit: Option<u64>,
}

/// Allocation refused: it would exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub live: u64,
    pub limit: u64,
}

#[derive(Debug)]
pub struct Reservation {
    meter: Arc<Meter>,
    id: u64,
    bytes: u64,
}

impl Meter {
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Meter {
            live_bytes: AtomicU64::new(0),
            live_buffers: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reclaims: AtomicU64::new(0),
            limit: AtomicU64::new(limit.unwrap_or(NO_LIMIT)),
            tracker: AllocationTracker::default(),
        })
    }

    /// Counts an allocation as live unless it would exceed the limit. It uses a compare-and-swap,
    /// so that two callers near the limit cannot both be refused, nor both be admitted.
    pub fn reserve(self: &Arc<Self>, record: Record) -> Result<Reservation, Refused> {
        let (id, bytes) = (record.id, record.bytes);
        let limit = self.limit.load(Relaxed);
        let fits = |live: u64| live.checked_add(bytes).filter(|total| *total <= limit);
        match self.live_bytes.fetch_update(Relaxed, Relaxed, fits) {
            Ok(before) => {
                self.peak_bytes.fetch_max(before + bytes, Relaxed);
                self.live_buffers.fetch_add(1, Relaxed);
                self.allocations.fetch_add(1, Relaxed);
                self.tracker.insert(record);
                let meter = self.clone();
                Ok(Reservation { meter, id, bytes })
            }
            Err(live) => Err(Refused { live, limit }),
        }
    }

    /// Counts an allocation that failed and is not retried.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Counts a reclaim: unused memory was freed to make room.
    pub fn count_reclaim(&self) {
        self.reclaims.fetch_add(1, Relaxed);
    }

    pub fn report(&self, most: usize) -> Report {
        self.tracker.report(most)
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(NO_LIMIT), Relaxed);
    }

    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit != NO_LIMIT)
    }

    pub fn reset_peak(&self) {
        self.peak_bytes
            .store(self.live_bytes.load(Relaxed), Relaxed);
    }

    pub fn usage(&self) -> Usage {
        Usage {
            live_bytes: self.live_bytes.load(Relaxed),
            live_buffers: self.live_buffers.load(Relaxed),
            peak_bytes: self.peak_bytes.load(Relaxed),
            allocations: self.allocations.load(Relaxed),
            frees: self.frees.load(Relaxed),
            failed: self.failed.load(Relaxed),
            reclaims: self.reclaims.load(Relaxed),
            limit: self.limit(),
        }
    }
}

impl Reservation {
    /// Records where the memory was allocated.
    pub fn set_location(&self, location: Location) {
        self.meter.tracker.set_location(self.id, location);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(record) = self.meter.tracker.remove(self.id) {
            watcher::report(&record);
        }
        self.meter.live_bytes.fetch_sub(self.bytes, Relaxed);
        self.meter.live_buffers.fetch_sub(1, Relaxed);
        self.meter.frees.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_id::{DeviceId, Runtime};
    use crate::dtype::DType;

    fn of(bytes: u64) -> Record {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let device = DeviceId {
            runtime: Runtime::Vulkan,
            index: 0,
        };
        Record {
            device,
            id: NEXT.fetch_add(1, Relaxed),
            bytes,
            spec: (DType::U8, bytes).into(),
            since: std::time::Instant::now(),
            location: None,
        }
    }

    #[test]
    fn exactly_the_limit_fits_and_one_byte_more_does_not() {
        let meter = Meter::new(Some(100));
        let kept = meter.reserve(of(100)).unwrap();
        assert_eq!(
            meter.reserve(of(1)).unwrap_err(),
            Refused {
                live: 100,
                limit: 100
            }
        );
        drop(kept);
        assert!(meter.reserve(of(100)).is_ok());
    }

    #[test]
    fn dropping_gives_back_and_the_peak_stays() {
        let meter = Meter::new(None);
        drop((
            meter.reserve(of(10)).unwrap(),
            meter.reserve(of(20)).unwrap(),
        ));
        let usage = meter.usage();
        assert_eq!((usage.live_bytes, usage.live_buffers), (0, 0));
        assert_eq!(
            (usage.peak_bytes, usage.allocations, usage.frees),
            (30, 2, 2)
        );
        meter.reset_peak();
        assert_eq!(meter.usage().peak_bytes, 0);
    }

    #[test]
    fn a_limit_under_what_is_live_lets_nothing_new_in() {
        let meter = Meter::new(None);
        let _kept = meter.reserve(of(50)).unwrap();
        meter.set_limit(Some(10));
        assert!(meter.reserve(of(1)).is_err());
        assert_eq!(meter.usage().live_bytes, 50);
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let meter = Meter::new(Some(1000));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        drop(meter.reserve(of(300)));
                    }
                });
            }
        });
        assert!(meter.usage().peak_bytes <= 1000);
        assert_eq!(meter.usage().live_bytes, 0);
        assert!(meter.report(10).largest.is_empty());
    }
}
