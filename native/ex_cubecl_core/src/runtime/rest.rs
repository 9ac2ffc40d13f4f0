//! Lets CubeCL's device thread sleep while nobody needs it. In 0.10 it looks for work every 150
//! microseconds for ever, which costs 8 % of a core for an idle device. So whoever leaves CubeCL
//! last gives the thread one more task: to wait until somebody enters again.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub struct Rest {
    state: Mutex<State>,
    entered: Condvar,
}

#[derive(Default)]
struct State {
    users: u64,
    /// How often somebody entered. A task to sleep is good until the next entry: if it went by the
    /// users alone, one who came and went quickly would leave it asleep with a full queue.
    entries: u64,
}

/// Somebody is using CubeCL; dropped when they leave.
pub struct Awake<'a> {
    rest: &'a Arc<Rest>,
    /// Has the device thread run a task.
    put_to_rest: &'a dyn Fn(Sleep),
}

/// A task for the device thread: to sleep until somebody enters.
pub struct Sleep {
    rest: Arc<Rest>,
    entries: u64,
}

impl Rest {
    /// Wakes the device thread and keeps it awake until the answer is dropped.
    pub fn enter<'a>(self: &'a Arc<Self>, put_to_rest: &'a dyn Fn(Sleep)) -> Awake<'a> {
        let mut state = self.state.lock();
        state.users += 1;
        state.entries += 1;
        drop(state);
        self.entered.notify_all();
        Awake {
            rest: self,
            put_to_rest,
        }
    }
}

impl Sleep {
    pub fn run(self) {
        let mut state = self.rest.state.lock();
        while state.entries == self.entries {
            self.rest.entered.wait(&mut state);
        }
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let mut state = self.rest.state.lock();
        state.users -= 1;
        let (last, entries) = (state.users == 0, state.entries);
        drop(state);
        if last {
            (self.put_to_rest)(Sleep {
                rest: self.rest.clone(),
                entries,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    /// A device thread whose queue takes one task beside the one that runs, as CubeCL's takes
    /// one batch.
    #[test]
    fn users_who_come_and_go_at_once_never_find_the_queue_stuck() {
        let rest = Arc::new(Rest::default());
        let (queue, tasks) = sync_channel::<Sleep>(1);
        std::thread::spawn(move || tasks.iter().for_each(Sleep::run));
        let (done, finished) = sync_channel(1);
        std::thread::spawn(move || {
            for _ in 0..20_000 {
                drop(rest.enter(&|sleep| queue.send(sleep).unwrap()));
            }
            done.send(()).unwrap();
        });
        assert!(finished.recv_timeout(Duration::from_secs(60)).is_ok());
    }
}
