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
    untold: Vec<Vec<u8>>,
}

static RELEASER: Mutex<Releaser> = Mutex::new(Releaser {
    pid: None,
    untold: Vec::new(),
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
            tell(pid, name);
        }
    }
}

fn tell(pid: LocalPid, name: Vec<u8>) {
    notify(pid, move |env| {
        let term = Binary::from_owned(OwnedBinary::from_slice(&name), env);
        if !pid.is_alive(env) {
            RELEASER.lock().untold.push(name);
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
    let untold = {
        let mut known = RELEASER.lock();
        known.pid = Some(releaser);
        std::mem::take(&mut known.untold)
    };
    untold.into_iter().for_each(|name| tell(releaser, name));
    let name = name.to_vec();
    Ok(ResourceArc::new(RemoteRef { name }))
}

#[rustler::nif]
fn remote_key<'a>(env: Env<'a>, handle: ResourceArc<RemoteRef>) -> NifResult<'a, Binary<'a>> {
    let name = OwnedBinary::from_slice(&handle.name);
    Ok(Binary::from_owned(name, env))
}
