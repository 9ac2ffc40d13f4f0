//! Panics and pauses on demand at the stages of a call, so that tests can see that nothing is lost or mixed
//! up wherever one happens. Without the feature `faults`, which no build for users has, a point is
//! nothing.

/// A place where a call can be made to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The account has been asked, the memory not yet.
    Reserved,
    /// The memory is there and belongs to nobody yet.
    Allocated,
    /// A storage is about to be changed, under its lock.
    Changing,
    /// The command of the change was queued.
    Changed,
    /// A read was queued.
    Queued,
    /// The bytes of a read are waited for.
    Waiting,
    /// A pool has counted one more buffer that it does not have yet.
    PoolGrown,
    /// An arena is about to place a tensor.
    Placing,
    /// The contents of two storages are about to change places.
    Exchanging,
    /// One of several storages was locked, read or exchanged, the others were not yet. Nothing can fail here: a test
    /// can pause here, and not panic.
    Between,
    /// The worker of a device has a job.
    Job,
    /// A driver is entered.
    Driver,
}

impl Stage {
    /// Those that can panic.
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

#[cfg(feature = "faults")]
mod armed {
    use std::cell::{Cell, RefCell};

    use super::Stage;

    type Pause = (Stage, Box<dyn FnMut()>);

    thread_local! {
        static NEXT: Cell<Option<(Stage, u32)>> = const { Cell::new(None) };
        static HIT: Cell<bool> = const { Cell::new(false) };
        static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
    }

    /// Lets the next pass of this thread through `stage` panic, after `skip` others.
    pub fn arm(stage: Stage, skip: u32) {
        HIT.set(false);
        NEXT.set(Some((stage, skip)));
    }

    /// Nothing panics any more; whether something did.
    pub fn disarm() -> bool {
        NEXT.set(None);
        HIT.replace(false)
    }

    /// What is armed, for a job on its way to another thread.
    pub fn take() -> Option<(Stage, u32)> {
        NEXT.take()
    }

    /// Calls `hook` at each pass of this thread through `stage`, until the next `pause_at`.
    pub fn pause_at(stage: Stage, hook: impl FnMut() + 'static) {
        PAUSE.replace(Some((stage, Box::new(hook))));
    }

    pub fn pause(stage: Stage) {
        // Taken out, for the hook may pass this stage itself.
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

#[cfg(feature = "faults")]
pub use armed::{arm, disarm, pause, pause_at, point, take};

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn point(_stage: Stage) {}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn pause(_stage: Stage) {}
