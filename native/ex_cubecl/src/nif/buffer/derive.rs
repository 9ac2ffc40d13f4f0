//! New buffers from the elements of another.

use std::sync::Arc;

use ex_cubecl_core::transfer::copy_across;
use ex_cubecl_core::{Buffer, DType, DeviceId};
use rustler::{Env, LocalPid, Reference};

use super::{progress, run_on_device};
use crate::call::{Call, Pending};
use crate::error::NifError;
use crate::resource::{BufferArg, SharedBuffer, handle};
use crate::term::{AllocOptions, Dims, Wire, spec};

#[rustler::nif]
fn buffer_duplicate<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    id: Wire<DeviceId>,
    dims: Dims,
    options: AllocOptions,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let spec = spec(env, Wire(buffer.dtype()), dims, options);
    let progress = progress(watcher);
    Call::new(env, tag).continue_with(id.0, move |device, call| {
        if Arc::ptr_eq(&device, buffer.device()) {
            return call.queue(device.worker(), move |call| {
                let copy = buffer.duplicate_as(spec);
                call.reply(copy.map(handle).map_err(NifError::from));
            });
        }
        let copy = Box::new(Buffer::lazy(device, spec)?);
        copy_across(SharedBuffer(buffer), copy, progress, move |copy| {
            call.reply(copy.map(|copy| handle(*copy)).map_err(NifError::from));
        })
    })
}

#[rustler::nif]
fn buffer_convert<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    run_on_device(Call::new(env, tag), buffer, move |buffer| {
        Ok(handle(buffer.convert(spec)?))
    })
}
