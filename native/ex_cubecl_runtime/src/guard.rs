//! Panics of CubeCL, wgpu or a driver, on their threads and on those of callers, become errors with their messages.

use std::panic::{set_hook, take_hook};
use std::sync::Once;

use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::threads::guard;
use parking_lot::Mutex;

/// The message of the last panic on a CubeCL thread: the caller that waits for that thread receives
/// only the fact that the call failed.
static LAST_MESSAGE: Mutex<Option<String>> = Mutex::new(None);

/// CubeCL's name for its device threads.
const DEVICE_THREAD: &str = "DSD-";

/// Installs a panic hook that keeps the messages of CubeCL's threads, and prints no panic that `caught` catches.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let on_device_thread = on_device_thread();
            if on_device_thread {
                *LAST_MESSAGE.lock() = Some(guard::message_of(info.payload()));
            }
            if !on_device_thread && !guard::is_guarded() {
                others(info);
            }
        }));
    });
}

fn on_device_thread() -> bool {
    std::thread::current()
        .name()
        .is_some_and(|name| name.starts_with(DEVICE_THREAD))
}

/// As core's `caught`. If the call failed because CubeCL's thread panicked, the error has the message of that
/// panic.
pub fn caught<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    guard::caught(call).map_err(|error| match error {
        Error::Driver { message }
            if message.contains("CallError") || message.contains("RecvError") =>
        {
            Error::driver(LAST_MESSAGE.lock().take().unwrap_or(message))
        }
        other => other,
    })
}
