//! `ExCubecl.Buffer`.

use std::sync::Arc;
use std::time::Duration;

use ex_cubecl_core::device;
use ex_cubecl_core::driver::Progress;
use ex_cubecl_core::{Buffer, DType, DeviceId};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, OwnedBinary, ResourceArc, Term};

use crate::atoms;
use crate::error::{Answer, Fault};
use crate::list;
use crate::post::post;
use crate::resource::{BufferRef, binary, handle};
use crate::term::{Dims, ListOf, Note, Wire, spec};

type Ref = ResourceArc<BufferRef>;

/// A preview of a busy device is given up rather than waited for.
const PREVIEW_PATIENCE: Duration = Duration::from_millis(50);

/// Sends `{progress, bytes}` to a watcher while a transfer goes on.
fn progress(watcher: Option<LocalPid>) -> Option<Progress> {
    let pid = watcher?;
    Some(Arc::new(move |bytes| {
        post(pid, move |env| (atoms::progress(), bytes).encode(env))
    }))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_from_list<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    note: Note,
) -> Answer<'a, Ref> {
    let device = device::open(id.0)?;
    let bytes = list::decode(data, dtype.0, &dims)?;
    handle(Buffer::new(device, spec(env, dtype, dims, note), &bytes))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_from_binary<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Binary<'a>,
    note: Note,
    watcher: Option<LocalPid>,
) -> Answer<'a, Ref> {
    let device = device::open(id.0)?;
    let spec = spec(env, dtype, dims, note);
    let progress = progress(watcher);
    handle(Buffer::new_watched(device, spec, &data, progress.as_ref()))
}

/// For a few bytes, on the caller's scheduler; `nil` where that would have to wait.
#[rustler::nif]
fn buffer_from_small<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    note: Note,
) -> Answer<'a, Option<Ref>> {
    let Some(device) = device::find_open(id.0) else {
        return Ok(None);
    };
    let made = match data.decode::<Binary>() {
        Ok(data) => Buffer::from_bytes_now(&device, spec(env, dtype, dims, note), &data),
        Err(_) => {
            let bytes = list::decode(data, dtype.0, &dims)?;
            Buffer::from_bytes_now(&device, spec(env, dtype, dims, note), &bytes)
        }
    };
    Ok(made.map(|buffer| ResourceArc::new(BufferRef::new(buffer))))
}

/// `nil` where the device is not open yet.
#[rustler::nif]
fn buffer_empty<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    note: Note,
) -> Answer<'a, Option<Ref>> {
    let Some(device) = device::find_open(id.0) else {
        return Ok(None);
    };
    let buffer = Buffer::lazy(device, spec(env, dtype, dims, note))?;
    handle(Ok(buffer)).map(Some)
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_iota<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    note: Note,
) -> Answer<'a, Ref> {
    let spec = spec(env, dtype, dims, note);
    handle(Buffer::iota(device::open(id.0)?, spec))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_allocate(buffer: Ref) -> Answer<'static, Atom> {
    buffer.0.ensure_allocated()?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_fill<'a>(buffer: Ref, value: Term<'a>) -> Answer<'a, Atom> {
    let dtype = buffer.0.dtype();
    let bits = list::bits(value, dtype).ok_or(Fault::Value {
        index: 0,
        value,
        dtype,
    })?;
    buffer.0.fill(bits)?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_read<'a>(
    env: Env<'a>,
    buffer: Ref,
    watcher: Option<LocalPid>,
) -> Answer<'static, Binary<'a>> {
    let progress = progress(watcher);
    let bytes = buffer
        .0
        .read_watched(0, buffer.0.count(), progress.as_ref())?;
    Ok(binary(env, bytes))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_read_part<'a>(
    env: Env<'a>,
    buffer: Ref,
    offset: u64,
    count: u64,
) -> Answer<'static, Binary<'a>> {
    Ok(binary(env, buffer.0.read(offset, count)?))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_read_all<'a>(env: Env<'a>, buffers: ListOf<Ref>) -> Answer<'static, Vec<Binary<'a>>> {
    let all = Buffer::read_all(buffers.iter().map(|buffer| &buffer.0))?;
    Ok(all.into_iter().map(|bytes| binary(env, bytes)).collect())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_to_list<'a>(env: Env<'a>, buffer: Ref, dims: Dims) -> Answer<'a, Term<'a>> {
    let bytes = buffer.0.read(0, buffer.0.count())?;
    list::encode(env, &bytes, buffer.0.dtype(), &dims)
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_preview<'a>(env: Env<'a>, buffer: Ref, most: u64) -> Answer<'static, Term<'a>> {
    let count = buffer.0.count().min(most);
    let bytes = buffer.0.read_soon(0, count, PREVIEW_PATIENCE)?;
    Ok(list::flat(env, &bytes, buffer.0.dtype()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_write<'a>(
    buffer: Ref,
    offset: u64,
    data: Binary<'a>,
    watcher: Option<LocalPid>,
) -> Answer<'a, Atom> {
    let progress = progress(watcher);
    buffer.0.write_watched(offset, &data, progress.as_ref())?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_write_list<'a>(buffer: Ref, offset: u64, dims: Dims, data: Term<'a>) -> Answer<'a, Atom> {
    let bytes = list::decode(data, buffer.0.dtype(), &dims)?;
    buffer.0.write(offset, &bytes)?;
    Ok(atoms::ok())
}

#[rustler::nif]
fn buffer_view(buffer: Ref, offset: u64, count: u64) -> Answer<'static, Ref> {
    handle(buffer.0.view(offset, count))
}

#[rustler::nif]
fn buffer_slice_bytes(buffer: Ref, offset: u64, len: u64) -> Answer<'static, Ref> {
    handle(buffer.0.slice_bytes(offset, len))
}

#[rustler::nif]
fn buffer_clone(buffer: Ref) -> Answer<'static, Ref> {
    handle(Ok(buffer.0.share()))
}

/// As `buffer_clone`, with an identity of its own.
#[rustler::nif]
fn buffer_detach(buffer: Ref) -> Answer<'static, Ref> {
    handle(Ok(buffer.0.detach()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_duplicate<'a>(
    env: Env<'a>,
    buffer: Ref,
    id: Wire<DeviceId>,
    dims: Dims,
    note: Note,
    watcher: Option<LocalPid>,
) -> Answer<'a, Ref> {
    let spec = spec(env, Wire(buffer.0.dtype()), dims, note);
    let (device, progress) = (device::open(id.0)?, progress(watcher));
    handle(buffer.0.duplicate_as(device, spec, progress.as_ref()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_convert<'a>(
    env: Env<'a>,
    buffer: Ref,
    dtype: Wire<DType>,
    dims: Dims,
    note: Note,
) -> Answer<'a, Ref> {
    handle(buffer.0.convert(spec(env, dtype, dims, note)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_copy(source: Ref, target: Ref) -> Answer<'static, Atom> {
    source.0.copy_to(&target.0)?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_synchronize(buffer: Ref) -> Answer<'static, Atom> {
    buffer.0.device().synchronize()?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn buffer_pointer(buffer: Ref) -> Answer<'static, u64> {
    Ok(buffer.0.pointer()?)
}

#[rustler::nif]
fn buffer_overlap(a: Ref, b: Ref) -> bool {
    a.0.overlaps(&b.0)
}

#[rustler::nif]
fn buffer_id(buffer: Ref) -> u64 {
    buffer.0.id()
}

#[rustler::nif]
fn buffer_storage_id(buffer: Ref) -> u64 {
    buffer.0.storage_id()
}

#[rustler::nif]
fn buffer_total_size(buffer: Ref) -> u64 {
    buffer.0.total_bytes()
}

#[rustler::nif]
fn buffer_allocated(buffer: Ref) -> bool {
    buffer.0.is_allocated()
}

#[rustler::nif]
fn buffer_ref_count(buffer: Ref) -> u64 {
    buffer.0.handles() as u64
}

/// Bytes of memory that the first write would take.
#[rustler::nif]
fn buffer_missing(buffer: Ref) -> u64 {
    match buffer.0.is_allocated() {
        true => 0,
        false => buffer.0.total_bytes(),
    }
}

/// The bytes of a list, without a buffer.
#[rustler::nif(schedule = "DirtyCpu")]
fn list_to_binary<'a>(
    env: Env<'a>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
) -> Answer<'a, Binary<'a>> {
    let bytes = list::decode(data, dtype.0, &dims)?;
    Ok(Binary::from_owned(OwnedBinary::from_slice(&bytes), env))
}

/// The list of bytes that came from elsewhere.
#[rustler::nif(schedule = "DirtyCpu")]
fn binary_to_list<'a>(
    env: Env<'a>,
    data: Binary<'a>,
    dtype: Wire<DType>,
    dims: Dims,
) -> Answer<'a, Term<'a>> {
    list::encode(env, &data, dtype.0, &dims)
}
