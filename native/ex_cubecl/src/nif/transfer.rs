//! `ExCubecl.Buffer.Transfer`.

use rustler::{Atom, Env, Reference, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::read::wait;
use crate::resource::BufferArg;
use crate::transfer::{TransferRef, TransferReply};

type Transfer = ResourceArc<TransferRef>;

/// Returns after the copy is queued, so that later writes do not change the result. `template` is
/// an error made by Elixir, without its reason.
#[rustler::nif]
fn buffer_read_async<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    template: Term<'a>,
    offset: u64,
    count: u64,
) -> Pending<'a> {
    let (mut reply, transfer) = TransferReply::new(env, template);
    let device = buffer.device().clone();
    Call::new(env, tag).continue_on(&device, move |call| {
        let size = buffer.dtype().size();
        let bytes = count.saturating_mul(size).min(buffer.bytes());
        let permit = buffer.device().worker().read_permit(bytes);
        let pending = match buffer.start_read(offset, count, None) {
            Ok(pending) => pending,
            Err(error) => return call.reply::<Atom>(Err(error.into())),
        };
        call.reply(Ok(transfer));
        reply.begin();
        wait(buffer, count, Ok(pending), None, move |bytes| {
            reply.send(bytes);
            drop(permit);
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
