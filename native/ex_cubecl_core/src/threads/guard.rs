//! Turns a panic into an error with its message.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be caught by `caught`. A panic hook then prints nothing: a library does
/// not write to its user's terminal.
pub fn is_guarded() -> bool {
    INSIDE.get()
}

/// Runs `call`; a panic inside is an `Error::Driver` that carries its message.
pub fn caught<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outer);
    result.unwrap_or_else(|payload| Err(Error::driver(message_of(&*payload))))
}

/// The message of a panic.
pub fn message_of(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked without a message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_first_line() {
        let result: Result<()> = caught(|| panic!("broke at {}\n  with a backtrace", 7));
        assert_eq!(result, Err(Error::driver("broke at 7")));
        assert_eq!(caught(|| Ok(3)), Ok(3));
        assert!(!is_guarded());
    }
}
