//! Calls whose result a thread of the library sends as a message `{tag, {:ok, value} | {:error, error}}`.
//! No BEAM scheduler waits for a device: a NIF queues the call, and `ExCubecl.Native` receives the message.

use std::sync::Arc;

use ex_cubecl_core::registry;
use ex_cubecl_core::threads::worker::{CONTROL, JobQueue, Worker};
use ex_cubecl_core::{Device, DeviceId, Error, Result};
use rustler::env::SavedTerm;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedEnv, Reference, Term};

use crate::atoms;
use crate::error::{NifError, NifResult};

/// The return type of a NIF whose result comes as a message.
pub type Pending<'a> = NifResult<'a, Atom>;

/// The process that waits, and the tag of its message. A `Call` that is dropped on a thread of the
/// library sends an error, so that the process does not wait indefinitely.
pub struct Call {
    pid: LocalPid,
    /// The environment of the message, with the tag in it. `None` once the message is sent.
    message: Option<(OwnedEnv, SavedTerm)>,
}

impl Call {
    pub fn new(env: Env<'_>, tag: Reference<'_>) -> Call {
        let message_env = OwnedEnv::new();
        let tag = message_env.save(tag);
        Call {
            pid: env.pid(),
            message: Some((message_env, tag)),
        }
    }

    pub fn reply<T: Encoder>(mut self, result: NifResult<'static, T>) {
        self.send(|env| encoded(env, result));
    }

    /// Sends a term that is made in the environment of the message.
    pub fn reply_with(mut self, result: impl for<'a> FnOnce(Env<'a>) -> NifResult<'a, Term<'a>>) {
        self.send(|env| encoded(env, result(env)));
    }

    fn send(&mut self, result: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        // `send_and_clear` panics on a thread of the VM; there the NIF returns the error itself.
        let Some((mut env, tag)) = self.message.take().filter(|_| on_our_thread()) else {
            return;
        };
        let _ = env.send_and_clear(&self.pid, |env| (tag.load(env), result(env)));
    }

    /// Whether the calling process is still alive.
    fn is_wanted(&self) -> bool {
        let message = self.message.as_ref();
        message.is_some_and(|(env, _)| env.run(|env| self.pid.is_alive(env)))
    }

    /// Runs `work` on the thread of `queue`, after the jobs queued before it, and sends its result.
    pub fn run_in<'a, T: Encoder>(
        self,
        queue: &JobQueue,
        work: impl FnOnce() -> NifResult<'static, T> + Send + 'static,
    ) -> Pending<'a> {
        queue.run(move || {
            if self.is_wanted() {
                self.reply(work());
            }
        })?;
        Ok(atoms::pending())
    }

    /// Continues the call with `next` on the thread of a device.
    pub fn continue_on<'a>(
        self,
        device: &Device,
        next: impl FnOnce(Call) + Send + 'static,
    ) -> Pending<'a> {
        self.queue(device.worker(), next)?;
        Ok(atoms::pending())
    }

    pub fn queue(self, worker: &Worker, next: impl FnOnce(Call) + Send + 'static) -> Result<()> {
        worker.run(move || {
            if self.is_wanted() {
                next(self);
            }
        })
    }

    /// Runs `work` on the thread of a device and sends its result.
    pub fn run<'a, T: Encoder>(
        self,
        device: &Device,
        work: impl FnOnce() -> NifResult<'static, T> + Send + 'static,
    ) -> Pending<'a> {
        self.continue_on(device, |call| call.reply(work()))
    }

    /// As `run`, on a device that is opened first if necessary.
    pub fn run_on<'a, T: Encoder>(
        self,
        id: DeviceId,
        work: impl FnOnce(&Arc<Device>) -> NifResult<'static, T> + Send + 'static,
    ) -> Pending<'a> {
        self.continue_with(id, move |device, call| {
            let worker = device.clone();
            call.queue(worker.worker(), move |call| call.reply(work(&device)))
        })
    }

    /// Continues the call with the device of this id once it is open.
    pub fn continue_with<'a>(
        self,
        id: DeviceId,
        next: impl FnOnce(Arc<Device>, Call) -> Result<()> + Send + 'static,
    ) -> Pending<'a> {
        match registry::find_open(id) {
            Some(device) => next(device, self)?,
            None => CONTROL.run(move || match registry::open(id) {
                // If `next` fails it drops the call, which then sends an error.
                Ok(device) => drop(next(device, self)),
                Err(error) => self.reply::<Atom>(Err(error.into())),
            })?,
        }
        Ok(atoms::pending())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // If the calling process has ended, no message is needed.
        if self.message.is_some() && self.is_wanted() {
            let broken = NifError::from(Error::driver("the call broke off"));
            self.send(|env| encoded::<Atom>(env, Err(broken)));
        }
    }
}

fn encoded<'a, T: Encoder>(env: Env<'a>, result: NifResult<'_, T>) -> Term<'a> {
    match result {
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(error) => (atoms::error(), error).encode(env),
    }
}

/// Whether this is a thread of the library: their names start with the library's name.
fn on_our_thread() -> bool {
    let thread = std::thread::current();
    thread
        .name()
        .is_some_and(|name| name.starts_with("ex_cubecl"))
}

/// A result that is returned at once, or comes as a message.
pub enum MaybePending<T> {
    Ready(T),
    Pending,
}

impl<T: Encoder> Encoder for MaybePending<T> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            MaybePending::Ready(value) => value.encode(env),
            MaybePending::Pending => atoms::pending().to_term(env),
        }
    }
}

/// Runs `work`, which does not use the device's driver: at once if the device is open, else after
/// it was opened on a thread of the library.
pub fn when_open<'a, T: Encoder>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: DeviceId,
    work: impl FnOnce(&Arc<Device>) -> Result<T> + Send + 'static,
) -> NifResult<'a, MaybePending<T>> {
    if let Some(device) = registry::find_open(id) {
        return Ok(MaybePending::Ready(work(&device)?));
    }
    Call::new(env, tag).run_on(id, move |device| Ok(work(device)?))?;
    Ok(MaybePending::Pending)
}
