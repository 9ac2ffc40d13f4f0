//! `ExCubecl.Remote`: handles of what another node keeps.

use parking_lot::Mutex;
use rustler::{Binary, Encoder, Env, LocalPid, OwnedBinary, Resource, ResourceArc};

use crate::atoms;
use crate::error::Answer;
use crate::post::post;

/// The process that is told which handles were collected, and the names that came while it was dead.
struct Releaser {
    pid: Option<LocalPid>,
    untold: Vec<Vec<u8>>,
}

static RELEASER: Mutex<Releaser> = Mutex::new(Releaser {
    pid: None,
    untold: Vec::new(),
});

/// When the last copy of it on this node is collected, the releaser is told its name.
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
    post(pid, move |env| {
        let term = Binary::from_owned(OwnedBinary::from_slice(&name), env);
        if !pid.is_alive(env) {
            RELEASER.lock().untold.push(name);
        }
        (atoms::released(), term).encode(env)
    });
}

/// From now on `releaser` is told of all handles, older ones too: a process that was killed has a successor.
#[rustler::nif]
fn remote_handle<'a>(releaser: LocalPid, name: Binary<'a>) -> Answer<'a, ResourceArc<RemoteRef>> {
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
fn remote_key<'a>(env: Env<'a>, handle: ResourceArc<RemoteRef>) -> Answer<'a, Binary<'a>> {
    let name = OwnedBinary::from_slice(&handle.name);
    Ok(Binary::from_owned(name, env))
}
