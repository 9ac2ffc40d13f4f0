//! `ExCubecl.Pool.Shared`: the pools that all processes share.

use ex_cubecl_core::allocators::pool::Stats;
use ex_cubecl_core::allocators::shared_pools;
use ex_cubecl_core::registry;
use ex_cubecl_core::{DType, DeviceId};
use rustler::{Atom, Env, Reference};

use super::checked_in;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::resource::{BufferArg, lent};
use crate::term::{AllocOptions, Dims, Wire, spec};

/// An idle buffer of a shared pool, or `nil` if there is none or the call would block.
#[rustler::nif]
fn pool_try_get_buffer<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    options: AllocOptions,
) -> NifResult<'a, Option<BufferArg>> {
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, options);
    let taken = shared_pools::try_get(&device, &spec, max)?;
    Ok(taken.map(|buffer| lent(Some(env), buffer, env.pid())))
}

/// An idle or a new buffer of a shared pool.
#[rustler::nif]
fn pool_get_buffer<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    options: AllocOptions,
) -> Pending<'a> {
    let (spec, holder) = (spec(env, dtype, dims, options), env.pid());
    Call::new(env, tag).run_on(id.0, move |device| {
        let buffer = shared_pools::get(device, &spec, max)?;
        Ok(lent(None, buffer, holder))
    })
}

#[rustler::nif]
fn pool_try_return_buffer(env: Env<'_>, buffer: BufferArg) -> NifResult<'static, Option<Atom>> {
    checked_in(Some(env), &buffer, shared_pools::check_in(&buffer, false))
}

#[rustler::nif]
fn pool_return_buffer<'a>(env: Env<'a>, tag: Reference<'a>, buffer: BufferArg) -> Pending<'a> {
    let device = buffer.device().clone();
    Call::new(env, tag).run(&device, move || {
        let result = shared_pools::check_in(&buffer, true);
        checked_in(None, &buffer, result)
    })
}

/// Device, bytes of each buffer, whether the buffers are persistent, and the pool's stats.
type SharedPool = (Wire<DeviceId>, u64, bool, Wire<Stats>);

#[rustler::nif]
fn pool_shared_stats() -> NifResult<'static, Vec<SharedPool>> {
    let stats = shared_pools::stats().into_iter();
    Ok(stats
        .map(|(id, bytes, persistent, stats)| (Wire(id), bytes, persistent, Wire(stats)))
        .collect())
}
