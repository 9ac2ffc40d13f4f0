//! How the process ends when lavapipe has run kernels in it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use glibc::without_destructors;

/// Lavapipe is a Linux driver.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn without_destructors() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// So many calls register each; one registration takes 32 bytes.
    const EACH: u64 = 256;

    // Declared here because the libc crate does not declare `on_exit`. Every version of glibc has
    // these functions.
    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn fflush(stream: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    /// Ends the process, when it exits, without the destructors of the libraries loaded so far.
    ///
    /// `exit` runs these destructors while all threads continue. Lavapipe compiles and frees
    /// kernels with LLVM on a thread of its own, which cannot be stopped from outside, and may do
    /// so after the static objects of LLVM have been destroyed: of VMs that were halted while
    /// kernels ran, one in a hundred ended by a signal.
    ///
    /// Must be called with each submission, and when a submission has finished. Destructors run in the
    /// reverse order of registration, and LLVM registers many when it compiles for the first time, on
    /// the driver's thread, which may be long after the submission. So `end` is registered repeatedly,
    /// with growing intervals between registrations; the last registration is the one that takes effect.
    pub fn without_destructors() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let calls = CALLS.fetch_add(1, Relaxed) + 1;
        if calls <= EACH || calls.is_power_of_two() {
            // SAFETY: `end` needs no argument. Its code is still loaded when it is called, because
            // a library that had a device open is never unloaded: threads of it run until the
            // process ends.
            unsafe { on_exit(end, ptr::null_mut()) };
        }
    }

    extern "C" fn end(status: c_int, _argument: *mut c_void) {
        // SAFETY: a null pointer stands for every stream, and `_exit` takes any status. `exit`
        // flushes the streams too, as its last step.
        unsafe {
            fflush(ptr::null_mut());
            _exit(status)
        }
    }
}
