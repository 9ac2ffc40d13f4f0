//! An answer that comes later, as a message to the process that asked.

use rustler::env::SavedTerm;
use rustler::{Encoder, Env, LocalPid, OwnedEnv, Reference, Term};

/// Answers its process exactly once: `send` takes the reply away.
pub struct Reply {
    env: OwnedEnv,
    tag: SavedTerm,
    to: LocalPid,
}

impl Reply {
    pub fn new(env: Env<'_>, tag: Reference<'_>) -> Self {
        let own = OwnedEnv::new();
        Reply {
            tag: own.save(tag.encode(env)),
            env: own,
            to: env.pid(),
        }
    }

    /// Sends `{tag, content}`. That the process has died meanwhile is no fault.
    pub fn send(mut self, content: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        let tag = self.tag;
        let _ = self
            .env
            .send_and_clear(&self.to, |env| (tag.load(env), content(env)).encode(env));
    }
}
