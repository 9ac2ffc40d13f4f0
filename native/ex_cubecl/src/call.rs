//! Calls whose result a thread of the library sends as a message `{tag, {:ok, value} | {:error, fault}}`.
//! No BEAM scheduler waits for a device: a NIF queues the call, and `ExCubecl.Native` receives the message.

use std::sync::Arc;

use ex_cubecl_core::registry;
use ex_cubecl_core::threads::worker::{CONTROL, JobQueue, Worker};
use ex_cubecl_core::{Device, DeviceId, Error, Result};
use rustler::env::SavedTerm;
use rustler::{Atom, Binary, Encoder, Env, LocalPid, OwnedEnv, Reference, Term};

use crate::atoms;
use crate::error::{NifError, NifResult};

/// The return type of a NIF whose result comes as a message.
pub type Pending<'a> = NifResult<'a, Atom>;

/// The process that waits, and the tag of its message. A `Call` that is dropped on a thread of the
/// library sends an error, so that the process does not wait indefinitely.
pub struct Call {
    pid: LocalPid,
    letter: Option<(OwnedEnv, SavedTerm)>,
}

impl Call {
    pub fn new(env: Env<'_>, tag: Reference<'_>) -> Call {
        let own = OwnedEnv::new();
        let tag = own.save(tag);
        Call {
            pid: env.pid(),
            letter: Some((own, tag)),
        }
    }

    pub fn answer<T: Encoder>(mut self, answer: NifResult<'static, T>) {
        self.send(|env| encoded(env, answer));
    }

    /// Sends a term that is made in the environment of the message.
    pub fn answer_with(mut self, answer: impl for<'a> FnOnce(Env<'a>) -> NifResult<'a, Term<'a>>) {
        self.send(|env| encoded(env, answer(env)));
    }

    fn send(&mut self, answer: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        // `send_and_clear` panics on a thread of the VM; there the NIF returns the error itself.
        let Some((mut env, tag)) = self.letter.take().filter(|_| on_our_thread()) else {
            return;
        };
        let _ = env.send_and_clear(&self.pid, |env| (tag.load(env), answer(env)));
    }

    /// Whether the calling process is still alive.
    fn is_wanted(&self) -> bool {
        let letter = self.letter.as_ref();
        letter.is_some_and(|(env, _)| env.run(|env| self.pid.is_alive(env)))
    }

    /// Runs `work` on the thread of `lane`, after the jobs queued before it, and sends its result.
    pub fn on<'a, T: Encoder>(
        self,
        lane: &JobQueue,
        work: impl FnOnce() -> NifResult<'static, T> + Send + 'static,
    ) -> Pending<'a> {
        lane.run(move || {
            if self.is_wanted() {
                self.answer(work());
            }
        })?;
        Ok(atoms::pending())
    }

    /// Continues the call with `next` on the thread of a device.
    pub fn then<'a>(
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
        self.then(device, |call| call.answer(work()))
    }

    /// As `run`, on a device that is opened first if necessary.
    pub fn run_on<'a, T: Encoder>(
        self,
        id: DeviceId,
        work: impl FnOnce(&Arc<Device>) -> NifResult<'static, T> + Send + 'static,
    ) -> Pending<'a> {
        self.opened(id, move |device, call| {
            let own = device.clone();
            call.queue(device.worker(), move |call| call.answer(work(&own)))
        })
    }

    /// Continues the call with the device of this id once it is open.
    pub fn opened<'a>(
        self,
        id: DeviceId,
        next: impl FnOnce(Arc<Device>, Call) -> Result<()> + Send + 'static,
    ) -> Pending<'a> {
        match registry::find_open(id) {
            Some(device) => next(device, self)?,
            None => CONTROL.run(move || match registry::open(id) {
                // If `next` fails it drops the call, which then sends an error.
                Ok(device) => drop(next(device, self)),
                Err(error) => self.answer::<Atom>(Err(error.into())),
            })?,
        }
        Ok(atoms::pending())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // If the calling process has ended, no message is needed.
        if self.letter.is_some() && self.is_wanted() {
            let broken = NifError::from(Error::driver("the call broke off"));
            self.send(|env| encoded::<Atom>(env, Err(broken)));
        }
    }
}

fn encoded<'a, T: Encoder>(env: Env<'a>, answer: NifResult<'_, T>) -> Term<'a> {
    match answer {
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(fault) => (atoms::error(), fault).encode(env),
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
pub enum Later<T> {
    Now(T),
    Pending,
}

impl<T: Encoder> Encoder for Later<T> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Later::Now(value) => value.encode(env),
            Later::Pending => atoms::pending().to_term(env),
        }
    }
}

/// Runs `work`, which does not use the device's driver: at once if the device is open, else after
/// it was opened on a thread of the library.
pub fn ask<'a, T: Encoder>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: DeviceId,
    work: impl FnOnce(&Device) -> T + Send + 'static,
) -> NifResult<'a, Later<T>> {
    if let Some(device) = registry::find_open(id) {
        return Ok(Later::Now(work(&device)));
    }
    Call::new(env, tag).run_on(id, move |device| Ok(work(device)))?;
    Ok(Later::Pending)
}

/// The bytes of a binary, kept without copying until a thread of the library is done with them.
pub struct Data {
    env: OwnedEnv,
    binary: SavedTerm,
}

impl Data {
    pub fn keep(binary: Binary<'_>) -> Data {
        let env = OwnedEnv::new();
        let binary = env.save(binary);
        Data { env, binary }
    }

    pub fn read<T>(&self, with: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        self.env
            .run(|env| match self.binary.load(env).decode::<Binary>() {
                Ok(binary) => with(&binary),
                Err(_) => Err(Error::driver("the data of a call was lost")),
            })
    }
}
