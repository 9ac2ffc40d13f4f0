//! Measures how long kernels take: the device's clock is read before the first kernel and after
//! each row of kernels. CubeCL 0.10 has timings too, but they end with the first pass after they
//! began.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use ex_cubecl_core::error::Result;

/// Two readings of a device's clock.
pub trait Timestamps: Send + Sync {
    fn begin(&self);
    /// May be called repeatedly; the last reading counts.
    fn end(&self);
    /// Waits for the readings.
    fn passed(&self) -> Result<Duration>;
}

/// A running timing. Without timestamps, the host's clock is used.
pub struct Timing {
    number: u64,
    pub timestamps: Option<Arc<dyn Timestamps>>,
    /// When the first kernel was launched.
    pub began: Option<Instant>,
}

#[derive(Default)]
pub struct Timings {
    running: AtomicUsize,
    all: Mutex<(u64, Vec<Timing>)>,
}

impl Timings {
    pub fn start(&self, timestamps: Option<Arc<dyn Timestamps>>) -> u64 {
        let mut all = self.all.lock();
        all.0 += 1;
        let number = all.0;
        all.1.push(Timing {
            number,
            timestamps,
            began: None,
        });
        self.running.store(all.1.len(), Release);
        number
    }

    pub fn stop(&self, number: u64) -> Option<Timing> {
        let mut all = self.all.lock();
        let at = all.1.iter().position(|timed| timed.number == number)?;
        let timed = all.1.swap_remove(at);
        self.running.store(all.1.len(), Release);
        Some(timed)
    }

    /// On the device thread, before a kernel.
    pub fn before_kernel(&self) {
        if self.running.load(Acquire) == 0 {
            return;
        }
        let mut all = self.all.lock();
        for timed in all.1.iter_mut().filter(|timed| timed.began.is_none()) {
            timed.began = Some(Instant::now());
            timed
                .timestamps
                .iter()
                .for_each(|timestamps| timestamps.begin());
        }
    }

    /// On the device thread, after kernels that were flushed.
    pub fn after_kernels(&self) {
        if self.running.load(Acquire) == 0 {
            return;
        }
        let all = self.all.lock();
        for timed in all.1.iter().filter(|timed| timed.began.is_some()) {
            timed
                .timestamps
                .iter()
                .for_each(|timestamps| timestamps.end());
        }
    }
}
