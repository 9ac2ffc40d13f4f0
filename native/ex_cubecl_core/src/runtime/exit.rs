//! How the process ends when lavapipe has run kernels in it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use glibc::without_destructors;

/// Lavapipe is a driver of Linux.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn without_destructors() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    // Of every version of glibc; the libc crate does not declare `on_exit`.
    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn fflush(stream: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    /// Ends the process, when it exits, without the destructors of the libraries loaded so far.
    ///
    /// `exit` runs them while all threads go on. Lavapipe compiles and frees kernels with LLVM, on
    /// a thread of its own that cannot be stopped from outside, when static objects of LLVM are
    /// gone: of VMs that were halted while kernels ran, one in a hundred ended by a signal.
    ///
    /// To be called with each submission. Destructors run in the reverse order of registration, and
    /// LLVM registers many when it compiles for the first time. So `end` is registered again and
    /// again, ever more rarely; the last registration is the one that counts.
    pub fn without_destructors() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        if (CALLS.fetch_add(1, Relaxed) + 1).is_power_of_two() {
            // SAFETY: `end` needs no argument. It is still there when it is called, since a library
            // that had a device open is never unloaded: threads of it run until the process ends.
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
