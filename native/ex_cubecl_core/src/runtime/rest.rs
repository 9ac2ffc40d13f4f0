//! Lets CubeCL's device thread sleep while nobody needs it. In 0.10 it looks for work every 150
//! microseconds for ever, which costs 8 % of a core for an idle device. So whoever leaves CubeCL
//! last gives the thread one more task: to wait until somebody enters again.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub struct Rest {
    users: Mutex<usize>,
    entered: Condvar,
}

/// Somebody is using CubeCL; dropped when they leave.
pub struct Awake<'a> {
    rest: &'a Arc<Rest>,
    /// Has the device thread run `Rest::sleep`.
    put_to_rest: &'a dyn Fn(Arc<Rest>),
}

impl Rest {
    /// Wakes the device thread and keeps it awake until the answer is dropped.
    pub fn enter<'a>(self: &'a Arc<Self>, put_to_rest: &'a dyn Fn(Arc<Rest>)) -> Awake<'a> {
        *self.users.lock() += 1;
        self.entered.notify_all();
        Awake {
            rest: self,
            put_to_rest,
        }
    }

    /// Waits, on the device thread, until somebody enters. A task that is late finds its user
    /// there and ends at once.
    pub fn sleep(&self) {
        let mut users = self.users.lock();
        while *users == 0 {
            self.entered.wait(&mut users);
        }
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let last = {
            let mut users = self.rest.users.lock();
            *users -= 1;
            *users == 0
        };
        if last {
            (self.put_to_rest)(self.rest.clone());
        }
    }
}
