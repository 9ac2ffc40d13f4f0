//! Messages from where there is no environment to send from, such as a destructor.

use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;
use rustler::{Env, LocalPid, OwnedEnv, Term};

type Letter = (
    LocalPid,
    Box<dyn for<'a> FnOnce(Env<'a>) -> Term<'a> + Send>,
);

static POST: Mutex<Option<Sender<Letter>>> = Mutex::new(None);

/// Sends a message from a thread of our own. That the process has died meanwhile is no fault.
pub fn post<M>(pid: LocalPid, message: M)
where
    M: for<'a> FnOnce(Env<'a>) -> Term<'a> + Send + 'static,
{
    let mut post = POST.lock();
    if post.is_none() {
        *post = start();
    }
    if let Some(sender) = &*post {
        let _ = sender.send((pid, Box::new(message)));
    }
}

fn start() -> Option<Sender<Letter>> {
    let (sender, letters) = channel::<Letter>();
    let deliver = move || {
        let mut env = OwnedEnv::new();
        for (pid, letter) in letters {
            let _ = env.send_and_clear(&pid, letter);
        }
    };
    let thread = std::thread::Builder::new().name("ex_cubecl post".into());
    thread.spawn(deliver).ok().map(|_| sender)
}
