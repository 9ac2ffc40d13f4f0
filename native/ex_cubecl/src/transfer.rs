//! The result of an asynchronous transfer, sent as a message `{ref, result}` to the process that
//! started it.

use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::{Error, Result};
use parking_lot::Mutex;
use rustler::env::SavedTerm;
use rustler::{Binary, Encoder, Env, LocalPid, OwnedBinary, OwnedEnv, Resource, ResourceArc, Term};

use crate::atoms;
use crate::error::{NifError, NifResult};

/// The caller's handle of a transfer: the `ref` of the message.
pub struct TransferRef {
    owner: LocalPid,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    awaited: bool,
    cancelled: bool,
}

#[rustler::resource_impl]
impl Resource for TransferRef {}

// The state is two flags under a lock that does not poison.
impl UnwindSafe for TransferRef {}
impl RefUnwindSafe for TransferRef {}

impl TransferRef {
    /// Lets the owner wait for the result, once.
    pub fn claim(&self, pid: LocalPid) -> NifResult<'static, ()> {
        if pid != self.owner {
            return Err(NifError::invalid_argument("transfer", "owner"));
        }
        if std::mem::replace(&mut self.state.lock().awaited, true) {
            return Err(NifError::invalid_argument("transfer", "used"));
        }
        Ok(())
    }

    /// A transfer whose message another process sends.
    pub fn pending(owner: LocalPid) -> ResourceArc<Self> {
        ResourceArc::new(TransferRef {
            owner,
            state: Mutex::default(),
        })
    }

    pub fn is_wanted(&self) -> bool {
        !self.state.lock().cancelled
    }

    pub fn cancel(&self) {
        self.state.lock().cancelled = true;
    }
}

/// Sends at most one message to the owner of a transfer: `send` consumes it. If it is dropped after `begin`,
/// because the code that held it panicked, it sends an error.
pub struct TransferReply {
    begun: bool,
    transfer: ResourceArc<TransferRef>,
    /// The environment of the message, with the template of its error. `None` once the message is sent.
    message: Option<(OwnedEnv, SavedTerm)>,
}

impl Drop for TransferReply {
    fn drop(&mut self) {
        if self.begun {
            self.send_once(Err(Error::driver("the transfer broke off")));
        }
    }
}

impl TransferReply {
    pub fn new(env: Env<'_>, template: Term<'_>) -> (Self, ResourceArc<TransferRef>) {
        let message_env = OwnedEnv::new();
        let template = message_env.save(template);
        let transfer = TransferRef::pending(env.pid());
        let reply = TransferReply {
            begun: false,
            transfer: transfer.clone(),
            message: Some((message_env, template)),
        };
        (reply, transfer)
    }

    /// After this call a message is always sent, unless the transfer is cancelled. It must be called on a
    /// thread of the library: the VM does not let its own threads send.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Sends the bytes or the error, unless the transfer was cancelled. If the process has died meanwhile,
    /// that is not an error.
    pub fn send(mut self, result: Result<OwnedBinary>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<OwnedBinary>) {
        let (Some((mut env, template)), transfer) = (self.message.take(), &self.transfer) else {
            return;
        };
        let state = transfer.state.lock();
        if state.cancelled {
            return;
        }
        let _ = env.send_and_clear(&transfer.owner, |env| {
            let result = match result {
                Ok(bytes) => (atoms::ok(), Binary::from_owned(bytes, env)).encode(env),
                Err(error) => filled(env, error, template.load(env)),
            };
            (transfer.clone(), result)
        });
    }
}

/// `{:error, error}`, where `error` is the template with its reason and details filled in.
fn filled<'a>(env: Env<'a>, error: Error, template: Term<'a>) -> Term<'a> {
    let (reason, details) = NifError::from(error).encode_parts(env);
    let filled = template.map_put(atoms::reason(), reason);
    let filled = filled.and_then(|error| error.map_put(atoms::details(), details));
    (atoms::error(), filled.unwrap_or(details)).encode(env)
}
