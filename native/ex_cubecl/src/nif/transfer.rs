//! `ExCubecl.Transfer`.

use rustler::{Atom, Encoder, Env, Reference, ResourceArc};

use crate::atoms;
use crate::error::{Answer, Fault};
use crate::reply::Reply;
use crate::resource::{BufferRef, binary};

/// The copy is queued before this returns, so that later writes do not show; the worker of the
/// device waits for it.
#[rustler::nif(schedule = "DirtyIo")]
fn buffer_read_async<'a>(
    env: Env<'a>,
    buffer: ResourceArc<BufferRef>,
    tag: Reference<'a>,
    offset: u64,
    count: u64,
) -> Answer<'static, Atom> {
    let reply = Reply::new(env, tag);
    let size = buffer.0.dtype().size();
    let turn = buffer
        .0
        .device()
        .worker()
        .turn(count.saturating_mul(size).min(buffer.0.bytes()));
    let pending = buffer.0.start_read(offset, count)?;
    let source = buffer.clone();
    buffer.0.device().worker().run(move || {
        let result = source.0.finish(pending, None).map_err(Fault::from);
        drop(source);
        reply.send(|env| result.map(|bytes| binary(env, bytes)).encode(env));
        drop(turn);
    })?;
    Ok(atoms::ok())
}
