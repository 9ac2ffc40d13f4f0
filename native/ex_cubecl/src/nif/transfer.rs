//! `ExCubecl.Buffer.Transfer`.

use rustler::{Atom, Env, Reference, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::reply::{Reply, TransferRef};
use crate::resource::{BufferRef, finish_read};

type Transfer = ResourceArc<TransferRef>;

/// Returns after the copy is queued, so that later writes do not change the result. `template` is
/// an error made by Elixir, without its reason.
#[rustler::nif]
fn buffer_read_async<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: ResourceArc<BufferRef>,
    template: Term<'a>,
    offset: u64,
    count: u64,
) -> Pending<'a> {
    let (mut reply, transfer) = Reply::new(env, template);
    let device = buffer.0.device().clone();
    Call::new(env, tag).then(&device, move |call| {
        let worker = buffer.0.device().worker();
        let size = buffer.0.dtype().size();
        let turn = worker.read_permit(count.saturating_mul(size).min(buffer.0.bytes()));
        let pending = match buffer.0.start_read(offset, count, None) {
            Ok(pending) => pending,
            Err(error) => return call.answer::<Atom>(Err(error.into())),
        };
        call.answer(Ok(transfer));
        let source = buffer.clone();
        let _ = worker.wait(move || {
            reply.begin();
            let result = finish_read(&source.0, count, pending, None);
            drop(source);
            reply.send(result);
            drop(turn);
        });
    })
}

/// A transfer whose result comes from another node, sent by a process.
#[rustler::nif]
fn transfer_new(env: Env<'_>) -> NifResult<'static, Transfer> {
    Ok(TransferRef::pending(env.pid()))
}

#[rustler::nif]
fn transfer_wanted(transfer: Transfer) -> bool {
    transfer.is_wanted()
}

/// Claims a transfer, so that the process that started it can wait for it, once.
#[rustler::nif]
fn transfer_claim(env: Env<'_>, transfer: Transfer) -> NifResult<'static, Atom> {
    transfer.claim(env.pid())?;
    Ok(atoms::ok())
}

/// After this call the result is not sent. A result that was sent before is in the mailbox.
#[rustler::nif]
fn transfer_cancel(transfer: Transfer) -> NifResult<'static, Atom> {
    transfer.cancel();
    Ok(atoms::ok())
}
