//! Ends a CubeCL device. CubeCL itself never does so: its registry keeps the thread and the server
//! of each device for the life of the process. For a lost device that would include all memory of
//! its driver. So the server is dropped in place, on its own thread, which then runs nothing else.

use cubecl::device::DeviceService;
use cubecl::device_handle::DeviceHandle;

use crate::cube::device_thread::Thread;
use crate::guard::caught;

/// Drops the server of a device after the tasks of its thread; if the thread was abandoned, once the
/// task has returned for which it was. The client, the server and the thread must not be used
/// afterwards.
pub fn retire<S: DeviceService + 'static>(thread: &Thread, server: &DeviceHandle<S>) {
    let server = server.clone();
    thread.end(move || server.submit(|server| end(server)));
}

fn end<S>(server: &mut S) {
    let _ = caught(|| {
        // SAFETY: this thread owns the server and has lent it to this function, which never
        // returns. So no code accesses the server after this call, and no code drops it a second
        // time.
        unsafe { std::ptr::drop_in_place(server) };
        Ok(())
    });
    loop {
        std::thread::park();
    }
}
