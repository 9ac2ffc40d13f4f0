//! Tells one watcher of every allocation that is freed, on any device. The number of reports that
//! wait is bounded: frees happen in destructors, which cannot wait for a watcher that is slow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::memory::allocation_tracker::Record;

/// Reports that may wait to be acknowledged. Further frees are counted instead.
pub const MOST_WAITING: u64 = 10_000;

/// Called with each freed allocation. It must not block, because it is called from destructors.
pub type Report = Box<dyn Fn(&Record) + Send + Sync>;

struct Watcher {
    report: Report,
    waiting: AtomicU64,
    missed: AtomicU64,
}

static WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHER: RwLock<Option<Watcher>> = RwLock::new(None);

/// Sets the watcher that is called for every allocation that is freed; `None` removes it. With a
/// watcher each free takes a lock and makes the call; without one it costs one load.
pub fn watch_frees(report: Option<Report>) {
    let mut current = WATCHER.write();
    WATCHED.store(report.is_some(), Relaxed);
    *current = report.map(Watcher::new);
}

/// Acknowledges one report, so that another may wait, and returns how many frees were not reported
/// since the last acknowledgement.
pub fn acknowledge() -> u64 {
    WATCHER.read().as_ref().map_or(0, Watcher::acknowledge)
}

pub(super) fn report(record: &Record) {
    if WATCHED.load(Relaxed)
        && let Some(watcher) = &*WATCHER.read()
    {
        watcher.report(record);
    }
}

impl Watcher {
    fn new(report: Report) -> Self {
        Watcher {
            report,
            waiting: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    fn report(&self, record: &Record) {
        let room = |waiting: u64| (waiting < MOST_WAITING).then_some(waiting + 1);
        match self.waiting.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => (self.report)(record),
            Err(_) => {
                self.missed.fetch_add(1, Relaxed);
            }
        }
    }

    fn acknowledge(&self) -> u64 {
        // A process that acknowledges more than it got must not make room without a bound.
        let one_less = |waiting: u64| waiting.checked_sub(1);
        let _ = self.waiting.fetch_update(Relaxed, Relaxed, one_less);
        self.missed.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device_id::{DeviceId, Runtime};
    use crate::dtype::DType;

    fn freed() -> Record {
        Record {
            device: DeviceId {
                runtime: Runtime::Vulkan,
                index: 0,
            },
            id: 1,
            bytes: 1,
            spec: (DType::U8, 1).into(),
            since: std::time::Instant::now(),
            location: None,
        }
    }

    #[test]
    fn reports_that_nobody_acknowledges_are_bounded_and_the_others_are_counted() {
        let told = Arc::new(AtomicU64::new(0));
        let counter = told.clone();
        let watcher = Watcher::new(Box::new(move |_| {
            counter.fetch_add(1, Relaxed);
        }));
        for _ in 0..MOST_WAITING + 7 {
            watcher.report(&freed());
        }
        assert_eq!(told.load(Relaxed), MOST_WAITING);
        assert_eq!((watcher.acknowledge(), watcher.acknowledge()), (7, 0));
        for _ in 0..3 {
            watcher.report(&freed());
        }
        assert_eq!(told.load(Relaxed), MOST_WAITING + 2);
        assert_eq!(watcher.acknowledge(), 1);
    }

    #[test]
    fn acknowledging_more_than_was_reported_makes_no_more_room() {
        let watcher = Watcher::new(Box::new(|_| ()));
        for _ in 0..5 {
            assert_eq!(watcher.acknowledge(), 0);
        }
        for _ in 0..MOST_WAITING + 1 {
            watcher.report(&freed());
        }
        assert_eq!(watcher.acknowledge(), 1);
    }
}
