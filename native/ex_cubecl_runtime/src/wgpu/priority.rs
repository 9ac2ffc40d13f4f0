//! The priority of a CPU driver's threads.

use ex_cubecl_core::error::{Error, Result};

use crate::guard::caught;

/// Runs `work` on a thread of lower priority, which the threads that it starts inherit.
///
/// A CPU driver computes on as many threads as there are cores. At the priority of the VM's schedulers, each
/// scheduler would wait for the time slices of these threads: tens of milliseconds on a machine of two cores.
/// Cores that the VM does not use are used by the driver as before.
pub fn at_low_priority<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(lower, work)
}

/// Runs `work` on a thread that takes no core from a running thread when it wakes up, and neither do the threads that
/// it starts. They keep their share of the cores.
///
/// Otherwise a scheduler that launches a kernel is stopped at once, because Linux runs a thread that has slept before
/// one that has run: the call then lasts as long as the work of the device's threads, 40 to 100 microseconds instead
/// of 5.
pub fn without_preemption<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(never_preempt, work)
}

fn on_a_thread<T: Send>(prepare: fn(), work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ex_cubecl driver".into());
        let thread = thread.spawn_scoped(scope, || {
            prepare();
            caught(work)
        });
        let ended = thread.map_err(Error::driver)?.join();
        ended.unwrap_or_else(|_| Err(Error::driver("a thread that opened a device ended early")))
    })
}

/// Linux has a nice value for each thread; elsewhere it belongs to the process.
#[cfg(target_os = "linux")]
fn lower() {
    /// The distance between the usual and the lowest priority. With half of it, delays of up to 40 ms were measured
    /// on two cores; with all of it, at most 14 ms.
    const STEPS: i32 = 19;

    // SAFETY: `nice` takes any number, and changes the nice value of the calling thread only. A failure leaves it as
    // it was: the device then works at the priority of the VM.
    let _ = unsafe { libc::nice(STEPS) };
}

#[cfg(target_os = "linux")]
fn never_preempt() {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the system only reads the parameter, which lives until the call returns. A
    // failure leaves the policy as it was.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &usual) };
}

#[cfg(not(target_os = "linux"))]
fn lower() {}

#[cfg(not(target_os = "linux"))]
fn never_preempt() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A field of the calling thread's `/proc/self/stat`, by its number in proc(5).
    fn field(number: usize) -> Option<i64> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
        // The name of the thread, the second field, is in parentheses and may contain spaces.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(number - 3)?.parse().ok()
    }

    fn nice_value() -> Option<i64> {
        field(19)
    }

    fn policy() -> Option<i64> {
        field(41)
    }

    #[test]
    fn threads_of_the_work_have_a_lower_priority_and_the_caller_keeps_its_own() {
        let before = nice_value();
        let inherited = || std::thread::spawn(nice_value).join().unwrap();
        let lowered = at_low_priority(|| Ok((nice_value(), inherited()))).unwrap();
        let expected = before.map(|before| (before + 19).min(19));
        assert!(expected.is_some());
        assert_eq!(lowered, (expected, expected));
        assert_eq!(nice_value(), before);
    }

    #[test]
    fn threads_of_the_work_preempt_no_other_and_the_caller_keeps_its_policy() {
        let before = policy();
        let inherited = || std::thread::spawn(policy).join().unwrap();
        let changed = without_preemption(|| Ok((policy(), inherited()))).unwrap();
        let batch = Some(i64::from(libc::SCHED_BATCH));
        assert_eq!(changed, (batch, batch));
        assert_eq!(policy(), before);
    }

    #[test]
    fn a_panic_is_an_error() {
        let broken: Result<()> = at_low_priority(|| panic!("broke"));
        assert_eq!(broken, Err(Error::driver("broke")));
    }
}
