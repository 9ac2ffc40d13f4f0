//! Runs tasks on CubeCL's thread of a device.
//!
//! CubeCL 0.10 has a queue of its own for that thread, with three faults: the thread polls it every
//! 150 microseconds without end, which costs 8 % of a core for an idle device; it has room for two
//! batches, and a caller that finds it full spins; and no caller can stop waiting for a task that does
//! not end. So the thread gets a single task from that queue, which never returns: it runs the tasks
//! that are pushed here, and sleeps while there are none. In a task, calls of CubeCL's client and of
//! its server run at once, because they are already on their thread; anywhere else they would wait
//! for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use cubecl::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::device_handle::DeviceHandle;
use ex_cubecl_core::error::{Error, Result};
use parking_lot::{Condvar, Mutex};

use crate::guard::caught;
use crate::lower::target::STREAM;

/// Limit of pushed tasks that have not finished. At the limit, `push` waits until earlier tasks
/// finish.
const MOST_WAITING: u64 = 256;

/// How often a caller that waits for its task looks whether the thread was abandoned.
const POLL: Duration = Duration::from_secs(1);

/// A CubeCL service without state: a task submitted to it runs on the device thread and can call
/// other services.
struct TaskRunner;

impl DeviceService for TaskRunner {
    fn init(_device: DeviceId) -> Self {
        TaskRunner
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

/// What runs once after a row of consecutive tasks that share it.
pub type After = Arc<dyn Fn() + Send + Sync>;

/// A task for the device thread.
pub struct Task {
    pub run: Box<dyn FnOnce() + Send>,
    /// A task without it does not interrupt a row.
    pub after: Option<After>,
    /// The caller that pushed the task waits for it and keeps the memory that it uses, so that
    /// `wait_idle` need not wait for it.
    pub awaited: bool,
}

#[derive(Default)]
struct TaskQueue {
    state: Mutex<State>,
    pushed: Condvar,
    finished: Condvar,
    /// Unfinished tasks that no caller awaits.
    detached: AtomicU64,
    abandoned: AtomicBool,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    pushed: u64,
    finished: u64,
    /// The value of `pushed` at the last task that no caller awaits.
    last_detached: u64,
    /// Runs after all tasks, and does not return.
    end: Option<Box<dyn FnOnce() + Send>>,
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
    device: DeviceId,
}

impl Thread {
    /// Returns the same thread for each opening of a CubeCL device. The server of the device must
    /// be initialized before.
    pub fn of(device: DeviceId) -> Thread {
        let mut known = KNOWN.lock();
        if let Some((_, thread)) = known.iter().find(|known| known.0 == device) {
            return thread.clone();
        }
        let queue: Arc<TaskQueue> = Arc::default();
        let runner = DeviceHandle::<TaskRunner>::new(device);
        let tasks = queue.clone();
        runner.submit(move |_| tasks.run_all());
        runner.flush_queue();
        let thread = Thread { queue, device };
        known.push((device, thread.clone()));
        thread
    }

    /// Runs `end`, which must not return, after all tasks that were pushed. No task may be pushed
    /// any more.
    pub fn end(&self, end: impl FnOnce() + Send + 'static) {
        KNOWN.lock().retain(|known| known.0 != self.device);
        self.queue.state.lock().end = Some(Box::new(end));
        self.queue.pushed.notify_all();
    }

    /// Whether there are unfinished tasks that no caller awaits.
    pub fn is_busy(&self) -> bool {
        self.queue.detached.load(Acquire) > 0
    }

    /// Runs a task on the device thread, after all tasks that were pushed before it. A task that is
    /// pushed to an abandoned thread is dropped.
    pub fn push(&self, task: Task) {
        self.queue.push(task);
    }

    /// As `push`; `false` if `push` would have to wait.
    pub fn try_push(&self, task: Task) -> bool {
        self.queue.try_push(task)
    }

    /// Runs `call` on the device thread, on the one stream, and waits for its result.
    pub fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call_before(None, call)
    }

    /// As `call`; runs `after` after the row of the task.
    pub fn call_before<T: Send + 'static>(
        &self,
        after: Option<After>,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = sync_channel(1);
        self.push(Task {
            run: Box::new(move || {
                // The caller has gone only if the thread was abandoned.
                let _ = answer.send(caught(|| STREAM.executes(call)));
            }),
            after,
            awaited: true,
        });
        loop {
            match result.recv_timeout(POLL) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) if !self.is_abandoned() => {}
                Err(RecvTimeoutError::Timeout) => return Err(Error::bad_kernel(GIVEN_UP)),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::driver(ABANDONED)),
            }
        }
    }

    /// Gives the device thread up: a task does not return. The waiting tasks are dropped, and no call waits for tasks any more.
    pub fn abandon(&self) {
        let dropped = self.queue.abandon();
        // Outside of the lock: a caller waits for the end of its task.
        drop(dropped);
    }

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

/// The error of the task that does not return.
const GIVEN_UP: &str = "its compilation did not end in ten minutes, and the device is lost with it";

/// The error of the calls behind it.
const ABANDONED: &str =
    "the compilation of a kernel did not end in ten minutes, and the device is lost with it";

impl TaskQueue {
    fn push(&self, task: Task) {
        let mut state = self.state.lock();
        while state.is_full() && !self.abandoned.load(Acquire) {
            self.finished.wait(&mut state);
        }
        if !self.abandoned.load(Acquire) {
            self.add(&mut state, task);
        }
    }

    fn try_push(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        let takes = !state.is_full() && !self.abandoned.load(Acquire);
        if takes {
            self.add(&mut state, task);
        }
        takes
    }

    fn add(&self, state: &mut State, task: Task) {
        state.pushed += 1;
        if !task.awaited {
            self.detached.fetch_add(1, Release);
            state.last_detached = state.pushed;
        }
        state.tasks.push_back(task);
        self.pushed.notify_all();
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

    /// On the device thread, for its whole life.
    fn run_all(&self) {
        loop {
            let mut state = self.state.lock();
            while state.tasks.is_empty() && state.end.is_none() {
                self.pushed.wait(&mut state);
            }
            let row = state.tasks.len();
            let end = if row == 0 { state.end.take() } else { None };
            drop(state);
            match end {
                Some(end) => end(),
                None => self.run(row),
            }
        }
    }

    /// Runs a row of tasks. They stay in the queue until their turn, so that `abandon` drops those behind a task that does
    /// not return.
    fn run(&self, row: usize) {
        let (mut count, mut detached) = (0, 0);
        let mut after: Option<After> = None;
        for _ in 0..row {
            let Some(task) = self.state.lock().tasks.pop_front() else {
                break;
            };
            count += 1;
            detached += u64::from(!task.awaited);
            if let Some(next) = &task.after
                && let Some(before) = after.take_if(|before| !Arc::ptr_eq(before, next))
            {
                run_caught(|| before());
            }
            run_caught(task.run);
            after = task.after.or(after);
        }
        if let Some(after) = after {
            run_caught(|| after());
        }
        let mut state = self.state.lock();
        state.finished += count;
        self.detached.fetch_sub(detached, Release);
        drop(state);
        self.finished.notify_all();
    }
}

/// The thread has no other task after one that panics: `run_all` must not end with it.
fn run_caught(run: impl FnOnce()) {
    let _ = caught(|| {
        run();
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
            after: None,
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
    fn every_task_runs_once_while_callers_wait() {
        let (thread, count) = (thread(2), Arc::new(AtomicU64::new(0)));
        let users: Vec<_> = (0..4)
            .map(|user| {
                let (thread, count) = (thread.clone(), count.clone());
                std::thread::spawn(move || {
                    for round in 0..5_000 {
                        match (round + user) % 3 {
                            0 => assert_eq!(thread.call(move || Ok(round)), Ok(round)),
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
    fn a_task_that_panics_loses_only_its_own_result() {
        let thread = thread(1);
        let broken: Result<()> = thread.call(|| panic!("broke"));
        assert!(broken.is_err());
        thread.push(Task {
            run: Box::new(|| panic!("broke")),
            after: None,
            awaited: false,
        });
        assert_eq!(thread.call(|| Ok(7)), Ok(7));
    }

    #[test]
    fn the_end_comes_after_all_tasks() {
        let (thread, count) = (thread(5), Arc::new(AtomicU64::new(0)));
        (0..100).for_each(|_| thread.push(counting(&count)));
        let (done, ended) = sync_channel(1);
        thread.end(move || {
            done.send(count.load(Acquire)).unwrap();
            loop {
                std::thread::park();
            }
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(100));
    }

    #[test]
    fn a_thread_that_was_given_up_blocks_no_caller() {
        let thread = thread(4);
        let (open, gate) = sync_channel::<()>(1);
        thread.push(Task {
            run: Box::new(move || gate.recv().unwrap()),
            after: None,
            awaited: false,
        });
        let waiting = thread.clone();
        let waits = std::thread::spawn(move || waiting.wait_idle());
        thread.abandon();
        in_time(move || waits.join().unwrap());
        assert!(thread.call(|| Ok(())).is_err());
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
        let after: After = Arc::new(move || said.lock().push('.'));
        let push = |run: Box<dyn FnOnce() + Send>| {
            thread.try_push(Task {
                run,
                after: Some(after.clone()),
                awaited: false,
            })
        };
        let (open, gate) = sync_channel::<()>(1);
        let (starts, started) = sync_channel::<()>(1);
        assert!(push(Box::new(move || {
            starts.send(()).unwrap();
            gate.recv().unwrap();
        })));
        // The other tasks are the next row.
        started.recv().unwrap();
        for _ in 0..3 {
            let said = order.clone();
            assert!(push(Box::new(move || said.lock().push('x'))));
        }
        open.send(()).unwrap();
        thread.wait_idle();
        let order = order.lock().clone();
        assert_eq!(order, ".xxx.");
    }
}
