//! `ExCubecl.Remote`: handles of what another node keeps.

use rustler::{Binary, Encoder, Env, LocalPid, OwnedBinary, Resource, ResourceArc};

use crate::atoms;
use crate::error::Answer;
use crate::post::post;

/// When the last copy of it on this node is collected, a process is told its name.
struct RemoteRef {
    releaser: LocalPid,
    name: Vec<u8>,
}

#[rustler::resource_impl]
impl Resource for RemoteRef {}

impl Drop for RemoteRef {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        post(self.releaser, move |env| {
            let name = Binary::from_owned(OwnedBinary::from_slice(&name), env);
            (atoms::released(), name).encode(env)
        });
    }
}

#[rustler::nif]
fn remote_handle<'a>(releaser: LocalPid, name: Binary<'a>) -> Answer<'a, ResourceArc<RemoteRef>> {
    let name = name.to_vec();
    Ok(ResourceArc::new(RemoteRef { releaser, name }))
}

#[rustler::nif]
fn remote_key<'a>(env: Env<'a>, handle: ResourceArc<RemoteRef>) -> Answer<'a, Binary<'a>> {
    let name = OwnedBinary::from_slice(&handle.name);
    Ok(Binary::from_owned(name, env))
}
