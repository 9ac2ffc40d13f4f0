//! Sends messages from code that has no environment to send from, such as a destructor.

use ex_cubecl_core::threads::notifier::Notifier;
use rustler::{Env, LocalPid, OwnedEnv, Term};

type Letter = (
    LocalPid,
    Box<dyn for<'a> FnOnce(Env<'a>) -> Term<'a> + Send>,
);

static POST: Notifier<Letter> = Notifier::new("ex_cubecl post", deliver);

/// Sends a message from a thread of the library. If the process has died meanwhile, that is not an
/// error.
pub fn post<M>(pid: LocalPid, message: M)
where
    M: for<'a> FnOnce(Env<'a>) -> Term<'a> + Send + 'static,
{
    POST.send((pid, Box::new(message)));
}

fn deliver((pid, letter): Letter) {
    let _ = OwnedEnv::new().send_and_clear(&pid, letter);
}
