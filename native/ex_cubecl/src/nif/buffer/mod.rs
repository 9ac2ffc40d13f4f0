//! `ExCubecl.Buffer`: the calls that use no driver, and what the other files share.

mod create;
mod derive;
mod read;
mod write;

use std::sync::Arc;

use ex_cubecl_core::driver::Progress;
use ex_cubecl_core::{Buffer, DType};
use rustler::{Encoder, Env, LocalPid, Reference};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifResult, busy_to_nil};
use crate::notifier::notify;
use crate::resource::{BufferArg, handle};
use crate::term::Wire;

/// Sends `{progress, bytes}` to a watcher process during a transfer.
fn progress(watcher: Option<LocalPid>) -> Option<Progress> {
    let pid = watcher?;
    Some(Arc::new(move |bytes| {
        notify(pid, move |env| (atoms::progress(), bytes).encode(env))
    }))
}

/// Runs a call on a buffer on the thread of its device.
fn run_on_device<'a, T: Encoder>(
    call: Call,
    buffer: BufferArg,
    work: impl FnOnce(&Buffer) -> NifResult<'static, T> + Send + 'static,
) -> Pending<'a> {
    let device = buffer.device().clone();
    call.run(&device, move || work(&buffer))
}

#[rustler::nif]
fn buffer_view(buffer: BufferArg, offset: u64, count: u64) -> NifResult<'static, BufferArg> {
    Ok(handle(buffer.view(offset, count)?))
}

#[rustler::nif]
fn buffer_slice_bytes(buffer: BufferArg, offset: u64, len: u64) -> NifResult<'static, BufferArg> {
    Ok(handle(buffer.slice_bytes(offset, len)?))
}

#[rustler::nif]
fn buffer_bitcast(buffer: BufferArg, dtype: Wire<DType>) -> NifResult<'static, BufferArg> {
    Ok(handle(buffer.bitcast(dtype.0)?))
}

#[rustler::nif]
fn buffer_clone(buffer: BufferArg) -> NifResult<'static, BufferArg> {
    Ok(handle(buffer.share()))
}

/// As `buffer_clone`, with a new identity.
#[rustler::nif]
fn buffer_detach(buffer: BufferArg) -> NifResult<'static, BufferArg> {
    Ok(handle(buffer.detach()))
}

/// Whether the memory was freed; `nil` if the call would block.
#[rustler::nif]
fn buffer_try_release(buffer: BufferArg) -> NifResult<'static, Option<bool>> {
    busy_to_nil(buffer.release(false))
}

#[rustler::nif]
fn buffer_release<'a>(env: Env<'a>, tag: Reference<'a>, buffer: BufferArg) -> Pending<'a> {
    run_on_device(Call::new(env, tag), buffer, |buffer| {
        Ok(buffer.release(true)?)
    })
}

#[rustler::nif]
fn buffer_synchronize<'a>(env: Env<'a>, tag: Reference<'a>, buffer: BufferArg) -> Pending<'a> {
    run_on_device(Call::new(env, tag), buffer, |buffer| {
        buffer.device().synchronize()?;
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn buffer_pointer<'a>(env: Env<'a>, tag: Reference<'a>, buffer: BufferArg) -> Pending<'a> {
    run_on_device(Call::new(env, tag), buffer, |buffer| Ok(buffer.pointer()?))
}

#[rustler::nif]
fn buffer_overlap(a: BufferArg, b: BufferArg) -> bool {
    a.overlaps(&b)
}

#[rustler::nif]
fn buffer_id(buffer: BufferArg) -> u64 {
    buffer.id()
}

#[rustler::nif]
fn buffer_storage_id(buffer: BufferArg) -> u64 {
    buffer.storage_id()
}

#[rustler::nif]
fn buffer_total_size(buffer: BufferArg) -> u64 {
    buffer.total_bytes()
}

#[rustler::nif]
fn buffer_allocated(buffer: BufferArg) -> bool {
    buffer.is_allocated()
}

#[rustler::nif]
fn buffer_ref_count(buffer: BufferArg) -> u64 {
    buffer.handles() as u64
}
