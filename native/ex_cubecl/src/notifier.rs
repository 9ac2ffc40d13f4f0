//! Sends messages from code that has no environment to send from, such as a destructor.

use ex_cubecl_core::threads::notifier::Notifier;
use rustler::{Env, LocalPid, OwnedEnv, Term};

type Message = (
    LocalPid,
    Box<dyn for<'a> FnOnce(Env<'a>) -> Term<'a> + Send>,
);

static NOTIFIER: Notifier<Message> = Notifier::new("ex_cubecl notifier", deliver);

/// Sends a message from a thread of the library. If the process has died meanwhile, that is not an
/// error.
pub fn notify<M>(pid: LocalPid, message: M)
where
    M: for<'a> FnOnce(Env<'a>) -> Term<'a> + Send + 'static,
{
    NOTIFIER.send((pid, Box::new(message)));
}

fn deliver((pid, message): Message) {
    let _ = OwnedEnv::new().send_and_clear(&pid, message);
}
