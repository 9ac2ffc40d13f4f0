//! New buffers.

use ex_cubecl_core::registry;
use ex_cubecl_core::{Buffer, DType, DeviceId};
use rustler::{Binary, Env, LocalPid, Reference, Term};

use super::progress;
use crate::call::{Call, MaybePending, Pending, when_open};
use crate::error::NifResult;
use crate::list;
use crate::list_cell;
use crate::resource::{BufferArg, handle};
use crate::saved_binary::SavedBinary;
use crate::term::{AllocOptions, Dims, Wire, spec};

/// Lists of up to this many cells are decoded on the caller's scheduler, which takes microseconds.
const MAX_CELLS: u64 = 32 << 10;

#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_from_list<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    options: AllocOptions,
) -> Pending<'a> {
    let bytes = list::decode(data, dtype.0, &dims)?;
    let spec = spec(env, dtype, dims, options);
    Call::new(env, tag).run_on(id.0, move |device| {
        Ok(handle(Buffer::new(device.clone(), spec, &bytes)?))
    })
}

#[rustler::nif]
#[allow(clippy::too_many_arguments)] // they describe a new buffer
fn buffer_from_binary<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Binary<'a>,
    options: AllocOptions,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    let (data, progress) = (SavedBinary::new(data), progress(watcher));
    Call::new(env, tag).run_on(id.0, move |device| {
        let device = device.clone();
        let write = |data: &[u8]| Buffer::new_with_progress(device, spec, data, progress.as_ref());
        Ok(handle(data.read(write)?))
    })
}

/// Makes a small buffer from a list or a binary; `nil` if that would block.
#[rustler::nif]
fn buffer_try_create<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    options: AllocOptions,
) -> NifResult<'a, Option<BufferArg>> {
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let created = match data.decode::<Binary>() {
        Ok(data) => Buffer::try_from_bytes(&device, spec(env, dtype, dims, options), &data),
        // A list can have any length, whatever its shape.
        Err(_) if !list_cell::has_at_most(data, MAX_CELLS) => None,
        Err(_) => {
            let bytes = list::decode(data, dtype.0, &dims)?;
            Buffer::try_from_bytes(&device, spec(env, dtype, dims, options), &bytes)
        }
    };
    Ok(created.map(handle))
}

#[rustler::nif]
fn buffer_empty<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> NifResult<'a, MaybePending<BufferArg>> {
    let spec = spec(env, dtype, dims, options);
    when_open(env, tag, id.0, move |device| {
        Ok(handle(Buffer::lazy(device.clone(), spec)?))
    })
}

#[rustler::nif]
fn buffer_iota<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    Call::new(env, tag).run_on(id.0, move |device| {
        Ok(handle(Buffer::iota(device.clone(), spec)?))
    })
}
