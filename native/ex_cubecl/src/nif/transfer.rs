//! `ExCubecl.Transfer`.

use rustler::{Atom, Env, ResourceArc, Term};

use crate::atoms;
use crate::error::Answer;
use crate::reply::{Reply, TransferRef};
use crate::resource::BufferRef;

type Transfer = ResourceArc<TransferRef>;

/// The copy is queued before this returns, so that later writes do not show; the worker of the
/// device waits for it. `template` is an error of Elixir's making, without its reason.
#[rustler::nif(schedule = "DirtyIo")]
fn buffer_read_async<'a>(
    env: Env<'a>,
    buffer: ResourceArc<BufferRef>,
    template: Term<'a>,
    offset: u64,
    count: u64,
) -> Answer<'static, Transfer> {
    let (mut reply, transfer) = Reply::new(env, template);
    let size = buffer.0.dtype().size();
    let bytes = count.saturating_mul(size).min(buffer.0.bytes());
    let turn = buffer.0.device().worker().turn(bytes);
    let pending = buffer.0.start_read(offset, count, None)?;
    let source = buffer.clone();
    buffer.0.device().worker().run(move || {
        reply.begin();
        let result = source.0.finish(pending, None);
        drop(source);
        reply.send(result);
        drop(turn);
    })?;
    Ok(transfer)
}

/// A transfer whose answer comes from another node, through a process.
#[rustler::nif]
fn transfer_new(env: Env<'_>) -> Answer<'static, Transfer> {
    Ok(TransferRef::pending(env.pid()))
}

#[rustler::nif]
fn transfer_wanted(transfer: Transfer) -> bool {
    transfer.is_wanted()
}

/// Lets the process that started a transfer wait for it, once.
#[rustler::nif]
fn transfer_claim(env: Env<'_>, transfer: Transfer) -> Answer<'static, Atom> {
    transfer.claim(env.pid())?;
    Ok(atoms::ok())
}

/// From now on the answer is not sent; one that was sent before is in the mailbox.
#[rustler::nif]
fn transfer_cancel(transfer: Transfer) -> Answer<'static, Atom> {
    transfer.cancel();
    Ok(atoms::ok())
}
