//! What CubeCL's device thread does while CubeCL does not need it: it sleeps, and runs the tasks that
//! are pushed here.
//!
//! In 0.10 it looks for work every 150 microseconds for ever, which costs 8 % of a core for an idle
//! device. So whoever leaves CubeCL last gives the thread one more task: to wait until somebody enters
//! again. A task that is pushed meanwhile runs at once, all that are there in a row, and nobody waits:
//! CubeCL's own queue has room for two batches, and a caller that finds it full spins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use cubecl::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::device_handle::DeviceHandle;
use parking_lot::{Condvar, Mutex};

/// Pushed tasks that may wait: whoever pushes more waits for those before.
const MOST_WAITING: u64 = 256;

/// A service of CubeCL's that has no state: a place for tasks on the device thread in which other
/// services can be called.
struct Idle;

impl DeviceService for Idle {
    fn init(_device: DeviceId) -> Self {
        Idle
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

/// Runs on the device thread.
pub struct Task {
    pub run: Box<dyn FnOnce() + Send>,
    /// Runs once behind all tasks of a row that share it.
    pub after: Arc<dyn Fn() + Send + Sync>,
    /// Whoever pushed it waits for it, and holds what it works on: nobody else has to.
    pub awaited: bool,
}

#[derive(Default)]
struct Rest {
    state: Mutex<State>,
    gate: Mutex<()>,
    entered: Condvar,
    finished: Condvar,
    /// Tasks that nobody waits for and that have not finished.
    loose: AtomicU64,
}

#[derive(Default)]
struct State {
    users: u64,
    /// How often somebody entered. A task to sleep is good until the next entry: if it went by the
    /// users alone, one who came and went quickly would leave it asleep with a full queue.
    entries: u64,
    /// The entry of the last task to sleep.
    put_to_rest: u64,
    tasks: VecDeque<Task>,
    pushed: u64,
    finished: u64,
    /// How many were pushed up to the last one that nobody waits for.
    last_loose: u64,
    /// The device thread will look at the tasks without being told.
    looking: bool,
    /// It was told to, and did not begin yet.
    told: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.pushed - self.finished >= MOST_WAITING
    }
}

static KNOWN: Mutex<Vec<(DeviceId, Thread)>> = Mutex::new(Vec::new());

/// The device thread of one device of CubeCL's.
#[derive(Clone)]
pub struct Thread {
    rest: Arc<Rest>,
    idle: DeviceHandle<Idle>,
}

/// Somebody is using CubeCL; dropped when they leave.
pub struct Awake<'a>(&'a Thread);

impl Thread {
    /// One for each device of CubeCL's, however often it is opened: two that rest on one thread would
    /// wait for each other.
    pub fn of(device: DeviceId) -> Thread {
        let mut known = KNOWN.lock();
        if let Some((_, thread)) = known.iter().find(|known| known.0 == device) {
            return thread.clone();
        }
        let thread = Thread {
            rest: Arc::default(),
            idle: DeviceHandle::new(device),
        };
        known.push((device, thread.clone()));
        // It starts out awake.
        drop(thread.enter());
        thread
    }

    /// To be called before the thread is ended.
    pub fn forget(&self) {
        let device = self.idle.device_id();
        KNOWN.lock().retain(|known| known.0 != device);
    }

    /// Wakes the device thread and keeps it awake until the answer is dropped.
    pub fn enter(&self) -> Awake<'_> {
        self.rest.enter();
        Awake(self)
    }

    /// Whether there are tasks that nobody waits for.
    pub fn is_busy(&self) -> bool {
        self.rest.loose.load(Acquire) > 0
    }

    /// Has the device thread run a task, behind those that were pushed before.
    pub fn push(&self, task: Task) {
        let rest = &self.rest;
        if rest.push(task) {
            return;
        }
        let _awake = self.enter();
        let tasks = rest.clone();
        self.idle.submit(move |_| tasks.run_waiting());
        self.idle.flush_queue();
    }

    /// As `push`, or `false` where that would have to wait.
    pub fn push_now(&self, task: Task) -> bool {
        self.rest.push_now(task)
    }

    /// How many tasks were pushed so far.
    #[cfg(test)]
    pub fn pushed(&self) -> u64 {
        self.rest.state.lock().pushed
    }

    /// Waits until all tasks have finished that were pushed so far and that nobody waits for.
    pub fn settle(&self) {
        if self.is_busy() {
            self.rest.settle();
        }
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let Awake(thread) = self;
        thread.rest.leave();
        // One at a time, so that tasks to sleep are queued in the order of their entries: an old one
        // behind the one that sleeps would leave no room in the queue.
        let _gate = thread.rest.gate.lock();
        if let Some(entries) = thread.rest.unused_since() {
            let rest = thread.rest.clone();
            thread.idle.submit(move |_| rest.sleep(entries));
            thread.idle.flush_queue();
        }
    }
}

impl Rest {
    fn enter(&self) {
        let mut state = self.state.lock();
        state.users += 1;
        state.entries += 1;
        drop(state);
        self.entered.notify_all();
    }

    fn leave(&self) {
        self.state.lock().users -= 1;
    }

    /// What `sleep` has to know where there is no user, and no such task yet.
    fn unused_since(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let unused = state.users == 0 && state.put_to_rest != state.entries;
        state.put_to_rest = if unused {
            state.entries
        } else {
            state.put_to_rest
        };
        unused.then_some(state.entries)
    }

    /// Whether the device thread will see the task without being told.
    fn push(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        while state.is_full() {
            self.finished.wait(&mut state);
        }
        self.take(&mut state, task);
        let seen = state.looking || state.told;
        state.told = !state.looking;
        drop(state);
        self.entered.notify_all();
        seen
    }

    fn push_now(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        let takes = state.looking && !state.is_full();
        if takes {
            self.take(&mut state, task);
            drop(state);
            self.entered.notify_all();
        }
        takes
    }

    fn take(&self, state: &mut State, task: Task) {
        state.pushed += 1;
        if !task.awaited {
            self.loose.fetch_add(1, Release);
            state.last_loose = state.pushed;
        }
        state.tasks.push_back(task);
    }

    fn settle(&self) {
        let mut state = self.state.lock();
        let mine = state.last_loose;
        while state.finished < mine {
            self.finished.wait(&mut state);
        }
    }

    /// On the device thread: until somebody enters.
    fn sleep(&self, entries: u64) {
        let mut state = self.state.lock();
        loop {
            // Whoever entered waits behind this: what is pushed from now on is not for it.
            state.looking = state.entries == entries;
            let stays = state.looking;
            let tasks = std::mem::take(&mut state.tasks);
            match (tasks.is_empty(), stays) {
                (false, _) => {
                    drop(state);
                    self.run(tasks);
                    state = self.state.lock();
                }
                (true, true) => self.entered.wait(&mut state),
                (true, false) => {}
            }
            if !stays {
                return;
            }
        }
    }

    /// On the device thread: what is there, and what comes meanwhile, but not for ever.
    fn run_waiting(&self) {
        for stays in [true, true, true, false] {
            let mut state = self.state.lock();
            state.told = false;
            state.looking = stays && !state.tasks.is_empty();
            let tasks = std::mem::take(&mut state.tasks);
            drop(state);
            if tasks.is_empty() {
                return;
            }
            self.run(tasks);
        }
    }

    fn run(&self, tasks: VecDeque<Task>) {
        let count = tasks.len() as u64;
        let loose = tasks.iter().filter(|task| !task.awaited).count() as u64;
        let mut after: Option<Arc<dyn Fn() + Send + Sync>> = None;
        for task in tasks {
            if let Some(before) = after.filter(|before| !Arc::ptr_eq(before, &task.after)) {
                before();
            }
            (task.run)();
            after = Some(task.after);
        }
        if let Some(after) = after {
            after();
        }
        let mut state = self.state.lock();
        state.finished += count;
        self.loose.fetch_sub(loose, Release);
        drop(state);
        self.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    /// Device ids of CubeCL's that no device has.
    fn thread(index_id: u16) -> Thread {
        Thread::of(DeviceId {
            type_id: 999,
            index_id,
        })
    }

    fn counting(count: &Arc<AtomicU64>) -> Task {
        let count = count.clone();
        Task {
            run: Box::new(move || {
                count.fetch_add(1, Release);
            }),
            after: Arc::new(|| ()),
            awaited: false,
        }
    }

    fn in_time(work: impl FnOnce() + Send + 'static) {
        let (done, finished) = sync_channel(1);
        std::thread::spawn(move || {
            work();
            done.send(()).unwrap();
        });
        assert!(finished.recv_timeout(Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn users_who_come_and_go_at_once_never_find_the_queue_stuck() {
        let thread = thread(1);
        in_time(move || {
            for _ in 0..20_000 {
                drop(thread.enter());
            }
        });
    }

    #[test]
    fn every_task_runs_once_whoever_comes_and_goes_meanwhile() {
        let (thread, count) = (thread(2), Arc::new(AtomicU64::new(0)));
        let users: Vec<_> = (0..4)
            .map(|user| {
                let (thread, count) = (thread.clone(), count.clone());
                std::thread::spawn(move || {
                    for round in 0..5_000 {
                        match (round + user) % 3 {
                            0 => drop(thread.enter()),
                            1 => thread.settle(),
                            _ => (),
                        }
                        thread.push(counting(&count));
                    }
                    thread.settle();
                })
            })
            .collect();
        in_time(move || users.into_iter().for_each(|user| user.join().unwrap()));
        assert_eq!(count.load(Acquire), 20_000);
        assert!(!thread.is_busy());
    }

    #[test]
    fn what_is_behind_tasks_runs_behind_all_of_a_row() {
        let (thread, order) = (thread(3), Arc::new(Mutex::new(String::new())));
        let said = order.clone();
        let after: Arc<dyn Fn() + Send + Sync> = Arc::new(move || said.lock().push('.'));
        let push = |run: Box<dyn FnOnce() + Send>| {
            thread.push_now(Task {
                run,
                after: after.clone(),
                awaited: false,
            })
        };
        // Once the device thread has gone to sleep.
        while !push(Box::new(|| ())) {
            std::thread::yield_now();
        }
        let (open, gate) = sync_channel::<()>(1);
        assert!(push(Box::new(move || gate.recv().unwrap())));
        for _ in 0..3 {
            let said = order.clone();
            assert!(push(Box::new(move || said.lock().push('x'))));
        }
        open.send(()).unwrap();
        thread.settle();
        let order = order.lock().clone();
        assert!(order.ends_with("xxx."), "{order}");
    }
}
