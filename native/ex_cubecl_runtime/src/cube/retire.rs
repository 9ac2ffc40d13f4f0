//! Ends a CubeCL device. CubeCL itself never does so: its registry keeps the thread and the server
//! of each device for the life of the process. For a lost device that would include all memory of
//! its driver. So the server is dropped in place, on its own thread, which then runs nothing else.

use cubecl::device::DeviceService;
use cubecl::device_handle::DeviceHandle;

use crate::cube::device_thread::Thread;
use crate::guard::caught;

/// Drops the server of a device. The client, the server and the thread must not be used afterwards.
/// This call waits for launches under way, so it must not run on a BEAM scheduler.
pub fn retire<S: DeviceService + 'static>(thread: &Thread, server: &DeviceHandle<S>) {
    thread.wait_idle();
    thread.forget();
    // The guard is never dropped, so that no sleep task is queued for CubeCL's thread.
    std::mem::forget(thread.enter());
    server.submit(|server| end(server));
    server.flush_queue();
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
