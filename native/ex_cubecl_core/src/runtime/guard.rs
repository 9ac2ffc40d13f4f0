//! The one place where a panic of CubeCL, wgpu or a driver becomes an error with its message. The
//! panic is not printed: a library does not write to its user's terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use parking_lot::Mutex;

use crate::error::{Error, Result};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The message of the last panic on a CubeCL thread: the caller that waits for that thread receives
/// only the fact that the call failed.
static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// CubeCL's name for its device threads.
const DEVICE_THREAD: &str = "DSD-";

pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let on_device_thread = on_device_thread();
            if on_device_thread {
                *LAST_WORDS.lock() = Some(words(info));
            }
            if !on_device_thread && !INSIDE.get() {
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

fn words(info: &PanicHookInfo<'_>) -> String {
    message_of(info.payload())
}

fn message_of(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked without a message".to_string())
}

/// Runs `call`; a panic inside is an `Error::Driver` that carries its message.
pub fn caught<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outer);
    result.unwrap_or_else(|payload| {
        let message = message_of(&*payload);
        let cause = match message.contains("CallError") || message.contains("RecvError") {
            true => LAST_WORDS.lock().take(),
            false => None,
        };
        Err(Error::driver(cause.unwrap_or(message)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_first_line() {
        install_hook();
        let result: Result<()> = caught(|| panic!("broke at {}\n  with a backtrace", 7));
        assert_eq!(result, Err(Error::driver("broke at 7")));
        assert_eq!(caught(|| Ok(3)), Ok(3));
    }
}
