//! Changes of the elements of a buffer.
//!
//! The first change of a lazy buffer allocates its memory. The caller has to allow that by `may_allocate`: otherwise the
//! call only returns `{allocate, bytes}`, so that the caller can count the bytes, and collect garbage if they do not fit,
//! before it calls again. A change of a buffer that has its memory therefore takes one call.

use std::sync::Arc;

use ex_cubecl_core::transfer::copy_across;
use ex_cubecl_core::{Buffer, Result};
use rustler::{Atom, Binary, Env, LocalPid, Reference, Term};

use super::{progress, run_on_device};
use crate::atoms;
use crate::call::{Call, MaybePending};
use crate::error::{NifError, NifResult};
use crate::list;
use crate::number;
use crate::resource::{BufferArg, SharedBuffer};
use crate::saved_binary::SavedBinary;
use crate::term::Dims;

/// `{allocate, bytes}`, or the result of the change as a message.
type Change<'a> = NifResult<'a, MaybePending<(Atom, u64)>>;

/// The bytes that a change of the buffer would allocate. A change of no elements allocates nothing.
fn missing_memory(buffer: &Buffer, is_empty: bool) -> Option<u64> {
    let is_missing = !is_empty && !buffer.is_allocated();
    is_missing.then(|| buffer.total_bytes())
}

fn needs_allocation<'a>(bytes: u64) -> Change<'a> {
    Ok(MaybePending::Ready((atoms::allocate(), bytes)))
}

/// Changes a buffer on the thread of its device.
fn change<'a>(
    call: Call,
    buffer: BufferArg,
    work: impl FnOnce(&Buffer) -> Result<()> + Send + 'static,
) -> Change<'a> {
    run_on_device(call, buffer, |buffer| {
        work(buffer)?;
        Ok(atoms::ok())
    })?;
    Ok(MaybePending::Pending)
}

#[rustler::nif]
fn buffer_allocate<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    may_allocate: bool,
) -> Change<'a> {
    match missing_memory(&buffer, false) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ => change(Call::new(env, tag), buffer, Buffer::ensure_allocated),
    }
}

/// Replaces all elements by the bytes at a device address.
#[rustler::nif]
fn buffer_copy_from_pointer<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    address: u64,
    may_allocate: bool,
) -> Change<'a> {
    match missing_memory(&buffer, buffer.count() == 0) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ => change(Call::new(env, tag), buffer, move |buffer| {
            buffer.copy_from_pointer(address)
        }),
    }
}

#[rustler::nif]
fn buffer_fill<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    value: Term<'a>,
    may_allocate: bool,
) -> Change<'a> {
    let dtype = buffer.dtype();
    let bits = number::bits(value, dtype);
    let bits = bits.ok_or_else(|| NifError::invalid_value(0, value, dtype))?;
    match missing_memory(&buffer, buffer.count() == 0) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ => change(Call::new(env, tag), buffer, move |buffer| buffer.fill(bits)),
    }
}

#[rustler::nif]
fn buffer_write<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    offset: u64,
    data: Binary<'a>,
    watcher: Option<LocalPid>,
    may_allocate: bool,
) -> Change<'a> {
    match missing_memory(&buffer, data.is_empty()) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ => {
            let (data, progress) = (SavedBinary::new(data), progress(watcher));
            change(Call::new(env, tag), buffer, move |buffer| {
                data.read(|data| buffer.write_with_progress(offset, data, progress.as_ref()))
            })
        }
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_write_list<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    offset: u64,
    dims: Dims,
    data: Term<'a>,
    may_allocate: bool,
) -> Change<'a> {
    match missing_memory(&buffer, dims.contains(&0)) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ => {
            let bytes = list::decode(data, buffer.dtype(), &dims)?;
            change(Call::new(env, tag), buffer, move |buffer| {
                buffer.write(offset, &bytes)
            })
        }
    }
}

#[rustler::nif]
fn buffer_copy<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    source: BufferArg,
    target: BufferArg,
    may_allocate: bool,
) -> Change<'a> {
    let call = Call::new(env, tag);
    match missing_memory(&target, target.count() == 0) {
        Some(bytes) if !may_allocate => needs_allocation(bytes),
        _ if Arc::ptr_eq(source.device(), target.device()) => {
            change(call, source, move |source| source.copy_to(&target))
        }
        _ => {
            copy_across(SharedBuffer(source), SharedBuffer(target), None, |copied| {
                call.reply(copied.map(|_| atoms::ok()).map_err(NifError::from));
            })?;
            Ok(MaybePending::Pending)
        }
    }
}
