//! The end of a device of CubeCL's, which has none itself: its registry keeps the thread and the server of
//! each device for the life of the process. Of a lost device that would be all memory of its driver. So the
//! server is dropped where it lies, on its own thread, which never runs again.

use cubecl::device::DeviceService;
use cubecl::device_handle::DeviceHandle;

use super::guard::caught;
use super::rest::Thread;

/// Drops the server of a device. Nobody may use the client, the server or the thread afterwards. It
/// waits for launches under way, so it is no call for a scheduler.
pub fn retire<S: DeviceService + 'static>(thread: &Thread, server: &DeviceHandle<S>) {
    thread.settle();
    thread.forget();
    // It is never left again: what CubeCL's thread would do then is not run.
    std::mem::forget(thread.enter());
    server.submit(|server| end(server));
    server.flush_queue();
}

fn end<S>(server: &mut S) {
    let _ = caught(|| {
        // SAFETY: the server is owned by this thread and borrowed for as long as this function runs,
        // which never returns: after this nobody sees it, and nobody drops it again.
        unsafe { std::ptr::drop_in_place(server) };
        Ok(())
    });
    loop {
        std::thread::park();
    }
}
