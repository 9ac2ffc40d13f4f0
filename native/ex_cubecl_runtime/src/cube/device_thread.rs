//! Puts CubeCL's device thread to sleep while CubeCL does not need it, and runs the tasks that are
//! pushed here on that thread.
//!
//! CubeCL 0.10 polls its queue every 150 microseconds without end, which costs 8 % of a core for an
//! idle device. So when the last guard of `Thread::enter` is dropped, it queues one more task for
//! the device thread: a sleep task, which waits until the next call of `enter`. A task that is
//! pushed while the thread sleeps runs at once, in a row with all other waiting tasks, and does not
//! go through CubeCL's own queue: that has room for two batches, and a caller that finds it full
//! spins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

use cubecl::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::device_handle::DeviceHandle;
use parking_lot::{Condvar, Mutex};

/// Limit of pushed tasks that have not finished. At the limit, `push` waits until earlier tasks
/// finish.
const MOST_WAITING: u64 = 256;

/// A CubeCL service without state: tasks submitted to it run on the device thread and can call
/// other services.
struct Idle;

impl DeviceService for Idle {
    fn init(_device: DeviceId) -> Self {
        Idle
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

/// A task for the device thread.
pub struct Task {
    pub run: Box<dyn FnOnce() + Send>,
    /// Runs once after a row of consecutive tasks that share it.
    pub after: Arc<dyn Fn() + Send + Sync>,
    /// The caller that pushed the task waits for it and keeps the memory that it uses, so that
    /// `wait_idle` need not wait for it.
    pub awaited: bool,
}

#[derive(Default)]
struct TaskQueue {
    state: Mutex<State>,
    gate: Mutex<()>,
    entered: Condvar,
    finished: Condvar,
    /// Unfinished tasks that no caller awaits.
    detached: AtomicU64,
    abandoned: AtomicBool,
}

#[derive(Default)]
struct State {
    users: u64,
    /// Number of calls of `enter`. A sleep task is valid until the next entry. If it looked only at
    /// `users`, a user that entered and left quickly would leave it asleep with a full queue.
    entries: u64,
    /// The value of `entries` for which the last sleep task was queued.
    sleep_queued_for: u64,
    tasks: VecDeque<Task>,
    pushed: u64,
    finished: u64,
    /// The value of `pushed` at the last task that no caller awaits.
    last_detached: u64,
    /// The device thread will look at `tasks` again without a new `run_waiting` task.
    polling: bool,
    /// A `run_waiting` task is queued for the device thread and has not begun.
    notified: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.pushed - self.finished >= MOST_WAITING
    }
}

static KNOWN: Mutex<Vec<(DeviceId, Thread)>> = Mutex::new(Vec::new());

/// The device thread of one CubeCL device.
#[derive(Clone)]
pub struct Thread {
    queue: Arc<TaskQueue>,
    idle: DeviceHandle<Idle>,
}

/// The guard of `Thread::enter`: keeps the device thread awake for one user of CubeCL, until it is
/// dropped.
pub struct WakeGuard<'a>(&'a Thread);

impl Thread {
    /// Returns the same thread for each opening of a CubeCL device: the sleep tasks of two
    /// instances on one device thread would wait for each other.
    pub fn of(device: DeviceId) -> Thread {
        let mut known = KNOWN.lock();
        if let Some((_, thread)) = known.iter().find(|known| known.0 == device) {
            return thread.clone();
        }
        let thread = Thread {
            queue: Arc::default(),
            idle: DeviceHandle::new(device),
        };
        known.push((device, thread.clone()));
        // It starts out awake.
        drop(thread.enter());
        thread
    }

    /// Must be called before the device thread ends.
    pub fn forget(&self) {
        let device = self.idle.device_id();
        KNOWN.lock().retain(|known| known.0 != device);
    }

    /// Wakes the device thread and keeps it awake until the returned guard is dropped.
    pub fn enter(&self) -> WakeGuard<'_> {
        self.queue.enter();
        WakeGuard(self)
    }

    /// Whether there are unfinished tasks that no caller awaits.
    pub fn is_busy(&self) -> bool {
        self.queue.detached.load(Acquire) > 0
    }

    /// Runs a task on the device thread, after all tasks that were pushed before it.
    pub fn push(&self, task: Task) {
        let queue = &self.queue;
        if queue.push(task) || self.is_abandoned() {
            return;
        }
        let _awake = self.enter();
        let tasks = queue.clone();
        self.idle.submit(move |_| tasks.run_waiting());
        self.idle.flush_queue();
    }

    /// As `push`; `false` if `push` would have to wait.
    pub fn try_push(&self, task: Task) -> bool {
        self.queue.try_push(task)
    }

    /// Gives the device thread up: a task does not return. The waiting tasks are dropped, and no call waits for tasks any more.
    pub fn abandon(&self) {
        let dropped = self.queue.abandon();
        // Outside of the lock: a caller waits for the end of its task.
        drop(dropped);
    }

    /// Whether the device thread was given up. CubeCL must not be called then, because it would wait for the thread.
    pub fn is_abandoned(&self) -> bool {
        self.queue.abandoned.load(Acquire)
    }

    /// Number of tasks pushed so far.
    #[cfg(test)]
    pub fn pushed(&self) -> u64 {
        self.queue.state.lock().pushed
    }

    /// Waits until all tasks have finished that were pushed so far and that no caller awaits.
    pub fn wait_idle(&self) {
        if self.is_busy() {
            self.queue.wait_idle();
        }
    }
}

impl Drop for WakeGuard<'_> {
    fn drop(&mut self) {
        let WakeGuard(thread) = self;
        thread.queue.leave();
        // The lock makes sure that sleep tasks are queued in the order of their entries: an
        // outdated one behind the one that sleeps would leave no room in the queue.
        let _gate = thread.queue.gate.lock();
        if let Some(entries) = thread.queue.unused_since() {
            let queue = thread.queue.clone();
            thread.idle.submit(move |_| queue.sleep(entries));
            thread.idle.flush_queue();
        }
    }
}

impl TaskQueue {
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

    /// The argument for `sleep`: the number of entries, if there is no user and no sleep task was
    /// queued for this number yet.
    fn unused_since(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let unused = state.users == 0 && state.sleep_queued_for != state.entries;
        state.sleep_queued_for = if unused {
            state.entries
        } else {
            state.sleep_queued_for
        };
        unused.then_some(state.entries)
    }

    /// Returns whether the device thread will see the task without a new `run_waiting` task.
    fn push(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        while state.is_full() && !self.abandoned.load(Acquire) {
            self.finished.wait(&mut state);
        }
        if self.abandoned.load(Acquire) {
            return false;
        }
        self.take(&mut state, task);
        let seen = state.polling || state.notified;
        state.notified = !state.polling;
        drop(state);
        self.entered.notify_all();
        seen
    }

    fn try_push(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        let takes = state.polling && !state.is_full() && !self.abandoned.load(Acquire);
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
            self.detached.fetch_add(1, Release);
            state.last_detached = state.pushed;
        }
        state.tasks.push_back(task);
    }

    fn wait_idle(&self) {
        let mut state = self.state.lock();
        let mine = state.last_detached;
        while state.finished < mine && !self.abandoned.load(Acquire) {
            self.finished.wait(&mut state);
        }
    }

    /// The tasks that will not run.
    fn abandon(&self) -> VecDeque<Task> {
        let mut state = self.state.lock();
        self.abandoned.store(true, Release);
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.finished.notify_all();
        tasks
    }

    /// On the device thread: waits until the next entry, and runs the tasks that are pushed
    /// meanwhile.
    fn sleep(&self, entries: u64) {
        let mut state = self.state.lock();
        loop {
            // The user that entered waits behind this task in CubeCL's queue: tasks that are pushed
            // from now on are not run here.
            state.polling = state.entries == entries;
            let stays = state.polling;
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

    /// On the device thread: runs the waiting tasks and those that are pushed meanwhile, in a
    /// limited number of passes.
    fn run_waiting(&self) {
        for stays in [true, true, true, false] {
            let mut state = self.state.lock();
            state.notified = false;
            state.polling = stays && !state.tasks.is_empty();
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
        let detached = tasks.iter().filter(|task| !task.awaited).count() as u64;
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
        self.detached.fetch_sub(detached, Release);
        drop(state);
        self.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    /// The thread of a CubeCL device id that no device has.
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
    fn every_task_runs_once_while_users_enter_and_leave() {
        let (thread, count) = (thread(2), Arc::new(AtomicU64::new(0)));
        let users: Vec<_> = (0..4)
            .map(|user| {
                let (thread, count) = (thread.clone(), count.clone());
                std::thread::spawn(move || {
                    for round in 0..5_000 {
                        match (round + user) % 3 {
                            0 => drop(thread.enter()),
                            1 => thread.wait_idle(),
                            _ => (),
                        }
                        thread.push(counting(&count));
                    }
                    thread.wait_idle();
                })
            })
            .collect();
        in_time(move || users.into_iter().for_each(|user| user.join().unwrap()));
        assert_eq!(count.load(Acquire), 20_000);
        assert!(!thread.is_busy());
    }

    #[test]
    fn a_thread_that_was_given_up_blocks_no_caller() {
        let thread = thread(4);
        let (open, gate) = sync_channel::<()>(1);
        thread.push(Task {
            run: Box::new(move || gate.recv().unwrap()),
            after: Arc::new(|| ()),
            awaited: false,
        });
        let waiting = thread.clone();
        let waits = std::thread::spawn(move || waiting.wait_idle());
        thread.abandon();
        in_time(move || waits.join().unwrap());
        let (pushed, count) = (thread.clone(), Arc::new(AtomicU64::new(0)));
        let counted = count.clone();
        in_time(move || {
            for _ in 0..2 * MOST_WAITING {
                pushed.push(counting(&counted));
                assert!(!pushed.try_push(counting(&counted)));
            }
            pushed.wait_idle();
        });
        assert_eq!(count.load(Acquire), 0);
        // The task was dropped if it had not started.
        let _ = open.send(());
    }

    #[test]
    fn what_is_behind_tasks_runs_behind_all_of_a_row() {
        let (thread, order) = (thread(3), Arc::new(Mutex::new(String::new())));
        let said = order.clone();
        let after: Arc<dyn Fn() + Send + Sync> = Arc::new(move || said.lock().push('.'));
        let push = |run: Box<dyn FnOnce() + Send>| {
            thread.try_push(Task {
                run,
                after: after.clone(),
                awaited: false,
            })
        };
        // Succeeds once the device thread sleeps.
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
        thread.wait_idle();
        let order = order.lock().clone();
        assert!(order.ends_with("xxx."), "{order}");
    }
}
