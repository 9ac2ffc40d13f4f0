//! Failpoints: panics and pauses on demand at the stages of a call, so that tests can check that nothing is
//! lost or mixed up at any of them. Without the feature `testing`, which no build for users has, a point
//! compiles to nothing.

/// A place where a call can be made to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The allocation is counted, its memory is not allocated yet.
    Reserved,
    /// The memory is allocated and has no owner yet.
    Allocated,
    /// A storage is about to be changed, under its lock.
    Changing,
    /// The command of the change was queued.
    Changed,
    /// A read was queued.
    Queued,
    /// A call waits for the bytes of a read.
    Waiting,
    /// A pool has counted one more buffer, whose memory is not allocated yet.
    PoolGrown,
    /// An arena is about to place a tensor.
    Placing,
    /// The contents of two storages are about to be exchanged.
    Exchanging,
    /// One of several storages was read or exchanged, the others were not yet. Nothing can fail here: a test
    /// can pause here, but not panic.
    Between,
    /// The worker of a device is about to run a job.
    Job,
    /// A driver is about to be called.
    Driver,
}

impl Stage {
    /// The stages that can panic.
    pub const ALL: [Stage; 11] = [
        Stage::Reserved,
        Stage::Allocated,
        Stage::Changing,
        Stage::Changed,
        Stage::Queued,
        Stage::Waiting,
        Stage::PoolGrown,
        Stage::Placing,
        Stage::Exchanging,
        Stage::Job,
        Stage::Driver,
    ];
}

#[cfg(feature = "testing")]
mod armed {
    use std::cell::{Cell, RefCell};

    use crate::failpoints::Stage;

    type Pause = (Stage, Box<dyn FnMut()>);

    thread_local! {
        static NEXT: Cell<Option<(Stage, u32)>> = const { Cell::new(None) };
        static HIT: Cell<bool> = const { Cell::new(false) };
        static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
    }

    /// Makes this thread panic the next time it passes `stage`, after it has passed it `skip` times.
    pub fn arm(stage: Stage, skip: u32) {
        HIT.set(false);
        NEXT.set(Some((stage, skip)));
    }

    /// Removes the armed fault. Returns whether it was triggered.
    pub fn disarm() -> bool {
        NEXT.set(None);
        HIT.replace(false)
    }

    /// Takes the armed fault of this thread, to move it with a job to another thread.
    pub fn take() -> Option<(Stage, u32)> {
        NEXT.take()
    }

    /// Calls `hook` at each pass of this thread through `stage`, until the next `pause_at`.
    pub fn pause_at(stage: Stage, hook: impl FnMut() + 'static) {
        PAUSE.replace(Some((stage, Box::new(hook))));
    }

    pub fn pause(stage: Stage) {
        // Taken out, because the hook may pass this stage itself.
        let Some((at, mut hook)) = PAUSE.take() else {
            return;
        };
        if at == stage {
            hook();
        }
        PAUSE.replace(Some((at, hook)));
    }

    #[allow(clippy::panic)]
    pub fn point(stage: Stage) {
        pause(stage);
        match NEXT.get() {
            Some((armed, 0)) if armed == stage => {
                NEXT.set(None);
                HIT.set(true);
                panic!("injected at {stage:?}");
            }
            Some((armed, skip)) if armed == stage => NEXT.set(Some((armed, skip - 1))),
            _ => {}
        }
    }
}

#[cfg(feature = "testing")]
pub use armed::{arm, disarm, pause, pause_at, point, take};

#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn point(_stage: Stage) {}

#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn pause(_stage: Stage) {}
