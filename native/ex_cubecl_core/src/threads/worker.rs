//! The two worker threads of a device. One runs the calls of processes in order, which may block in the
//! driver; the other waits for the reads that these calls started. Both start with their first job and
//! end with the device.

use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, LazyLock};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::threads::guard::caught;

/// Reads in progress hold staging memory; above this many bytes a new read waits.
const MAX_IN_FLIGHT: u64 = 256 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs that belong to no open device: listing and opening devices.
pub static CONTROL: LazyLock<JobQueue> = LazyLock::new(|| JobQueue::new("control".into()));

/// Runs jobs that wait for several devices at once, so that no device waits for another.
pub static MULTI_DEVICE: LazyLock<JobQueue> =
    LazyLock::new(|| JobQueue::new("multi-device".into()));

/// Runs calculations of the host, on as many threads as the machine runs at once.
pub static HOST: LazyLock<JobQueue> = LazyLock::new(|| JobQueue {
    threads: std::thread::available_parallelism().map_or(1, |count| count.get()),
    ..JobQueue::new("host".into())
});

pub struct Worker {
    calls: JobQueue,
    reads: JobQueue,
    in_flight: Arc<InFlight>,
}

/// A thread that runs jobs in order, or several that share them.
pub struct JobQueue {
    name: String,
    threads: usize,
    queue: Mutex<Option<Sender<Job>>>,
}

#[derive(Default)]
struct InFlight {
    bytes: Mutex<u64>,
    less: Condvar,
}

/// The right to have `bytes` bytes in flight. `Drop` returns it.
pub struct ReadPermit {
    in_flight: Arc<InFlight>,
    bytes: u64,
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        *self.in_flight.bytes.lock() -= self.bytes;
        self.in_flight.less.notify_all();
    }
}

impl Worker {
    pub(crate) fn new(name: String) -> Self {
        Worker {
            calls: JobQueue::new(name.clone()),
            reads: JobQueue::new(format!("{name} reads")),
            in_flight: Arc::default(),
        }
    }

    /// Waits until `bytes` more may be in flight. A read larger than the limit waits until no other is in
    /// flight.
    pub fn read_permit(&self, bytes: u64) -> ReadPermit {
        let mut in_flight = self.in_flight.bytes.lock();
        while *in_flight > 0 && *in_flight + bytes > MAX_IN_FLIGHT {
            self.in_flight.less.wait(&mut in_flight);
        }
        *in_flight += bytes;
        drop(in_flight);
        ReadPermit {
            in_flight: self.in_flight.clone(),
            bytes,
        }
    }

    /// Queues a call, which runs after the calls queued before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        self.calls.run(job)
    }

    /// Queues a job that waits for a read, after the jobs queued before it.
    pub fn wait(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        self.reads.run(job)
    }
}

impl JobQueue {
    fn new(name: String) -> Self {
        JobQueue {
            name,
            threads: 1,
            queue: Mutex::new(None),
        }
    }

    /// Queues `job`, which runs after the jobs queued before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let job: Job = Box::new(carry(job));
        let mut queue = self.queue.lock();
        // The thread may not be started yet, or may have ended.
        let job = match queue.as_ref() {
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(SendError(job)) => job,
            },
            None => job,
        };
        let sender = queue.insert(self.start()?);
        sender.send(job).map_err(Error::driver)
    }

    fn start(&self) -> Result<Sender<Job>> {
        let (sender, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..self.threads {
            let jobs = jobs.clone();
            std::thread::Builder::new()
                .name(format!("ex_cubecl {}", self.name))
                .spawn(move || std::iter::from_fn(|| next(&jobs)).for_each(run))
                .map_err(Error::driver)?;
        }
        Ok(sender)
    }
}

/// The next job. While one thread waits for it, the others wait for the lock.
fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().recv().ok()
}

/// Moves a fault that is armed on the calling thread to the thread that runs the job.
#[cfg(feature = "testing")]
fn carry(job: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
    let armed = crate::failpoints::take();
    move || {
        crate::failpoints::disarm();
        if let Some((stage, skip)) = armed {
            crate::failpoints::arm(stage, skip);
        }
        crate::failpoints::point(crate::failpoints::Stage::Job);
        job();
    }
}

#[cfg(not(feature = "testing"))]
fn carry(job: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
    job
}

/// A job that panics loses only its own result; the thread goes on.
fn run(job: Job) {
    let _ = caught(|| {
        job();
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn jobs_run_in_their_order() {
        let worker = Worker::new("test".into());
        let (sender, results) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            worker.run(move || sender.send(number).unwrap()).unwrap();
        }
        drop(sender);
        assert!(results.iter().eq(0..100));
    }

    #[test]
    fn several_threads_share_the_jobs_of_a_queue() {
        let queue = JobQueue {
            threads: 2,
            ..JobQueue::new("test".into())
        };
        let (sender, results) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        queue.run(move || gate.recv().unwrap_or_default()).unwrap();
        queue.run(move || sender.send(7).unwrap()).unwrap();
        assert_eq!(results.recv_timeout(Duration::from_secs(60)), Ok(7));
        drop(open);
    }

    #[test]
    fn a_thread_that_has_ended_is_replaced() {
        let lane = JobQueue::new("test".into());
        *lane.queue.lock() = Some(channel().0);
        let (sender, results) = mpsc::channel();
        lane.run(move || sender.send(7).unwrap()).unwrap();
        assert_eq!(results.recv_timeout(Duration::from_secs(60)), Ok(7));
    }

    #[test]
    fn a_turn_waits_until_there_is_room() {
        let worker = Arc::new(Worker::new("test".into()));
        let first = worker.read_permit(MAX_IN_FLIGHT);
        let (sender, got) = mpsc::channel();
        let waiting = worker.clone();
        std::thread::spawn(move || sender.send(waiting.read_permit(1).bytes));
        assert!(got.recv_timeout(Duration::from_millis(50)).is_err());
        drop(first);
        assert_eq!(got.recv_timeout(Duration::from_secs(10)), Ok(1));
    }
}
