//! `ExCubecl.Cluster.Client`: handles of buffers that another node holds.

use parking_lot::Mutex;
use rustler::{Binary, Encoder, Env, LocalPid, OwnedBinary, Resource, ResourceArc};

use crate::atoms;
use crate::error::NifResult;
use crate::notifier::notify;

/// The process that is notified of garbage-collected handles, and the names of the handles that
/// were collected while no such process was alive.
struct Releaser {
    pid: Option<LocalPid>,
    pending: Vec<Vec<u8>>,
}

static RELEASER: Mutex<Releaser> = Mutex::new(Releaser {
    pid: None,
    pending: Vec::new(),
});

/// A handle of a remote buffer. When its last copy on this node is garbage-collected, the releaser
/// process is sent its name.
struct RemoteRef {
    name: Vec<u8>,
}

#[rustler::resource_impl]
impl Resource for RemoteRef {}

impl Drop for RemoteRef {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        let releaser = RELEASER.lock().pid;
        if let Some(pid) = releaser {
            notify_released(pid, name);
        }
    }
}

fn notify_released(pid: LocalPid, name: Vec<u8>) {
    notify(pid, move |env| {
        let term = Binary::from_owned(OwnedBinary::from_slice(&name), env);
        if !pid.is_alive(env) {
            RELEASER.lock().pending.push(name);
        }
        (atoms::released(), term).encode(env)
    });
}

/// Makes a handle, and makes `releaser` the process that is notified of all handles, older ones too:
/// a releaser that was killed is replaced by a new process.
#[rustler::nif]
fn remote_handle<'a>(
    releaser: LocalPid,
    name: Binary<'a>,
) -> NifResult<'a, ResourceArc<RemoteRef>> {
    let pending = {
        let mut known = RELEASER.lock();
        known.pid = Some(releaser);
        std::mem::take(&mut known.pending)
    };
    pending
        .into_iter()
        .for_each(|name| notify_released(releaser, name));
    let name = name.to_vec();
    Ok(ResourceArc::new(RemoteRef { name }))
}

#[rustler::nif]
fn remote_name<'a>(env: Env<'a>, handle: ResourceArc<RemoteRef>) -> NifResult<'a, Binary<'a>> {
    let name = OwnedBinary::from_slice(&handle.name);
    Ok(Binary::from_owned(name, env))
}
