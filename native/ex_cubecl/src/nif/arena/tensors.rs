//! `ExCubecl.Arena.Tensors`: buffers in an arena.

use ex_cubecl_core::{DType, Error};
use rustler::{Atom, Env, Reference};

use super::{ArenaArg, find_or_create, run_on_device};
use crate::atoms;
use crate::call::Pending;
use crate::error::{NifResult, busy_to_nil};
use crate::pid;
use crate::resource::{BufferArg, buffers, handle};
use crate::term::{AllocOptions, Dims, ListOf, ShortListOf, Wire, spec};

/// `nil` if the tensor needs new memory, or the call would block.
#[rustler::nif]
fn arena_try_alloc<'a>(
    env: Env<'a>,
    arena: ArenaArg,
    dtype: Wire<DType>,
    dims: Dims,
) -> NifResult<'a, Option<BufferArg>> {
    let Some(arena) = arena.find(pid::caller(env))? else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, AllocOptions::default());
    let tensor = busy_to_nil(arena.alloc(spec, false))?;
    Ok(tensor.map(handle))
}

#[rustler::nif]
fn arena_alloc<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: ArenaArg,
    dtype: Wire<DType>,
    dims: Dims,
) -> Pending<'a> {
    let options = AllocOptions::default();
    let (spec, pid) = (spec(env, dtype, dims, options), env.pid());
    run_on_device(env, tag, arena, move |arena, owner| {
        let arena = find_or_create(arena, pid, owner)?;
        Ok(handle(arena.alloc(spec, true)?))
    })
}

/// `nil` if the call would block, or if there are too many tensors to drop on a scheduler.
#[rustler::nif]
fn arena_try_drop(
    env: Env<'_>,
    arena: ArenaArg,
    tensors: ShortListOf<BufferArg>,
) -> NifResult<'static, Option<Atom>> {
    match tensors.0 {
        Some(tensors) => drop_tensors(&arena, pid::caller(env), &tensors, false),
        None => Ok(None),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn arena_drop<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: ArenaArg,
    tensors: ListOf<BufferArg>,
) -> Pending<'a> {
    run_on_device(env, tag, arena, move |arena, owner| {
        drop_tensors(arena, owner, &tensors, true)
    })
}

fn drop_tensors(
    arena: &ArenaArg,
    owner: u64,
    tensors: &[BufferArg],
    may_wait: bool,
) -> NifResult<'static, Option<Atom>> {
    match arena.find(owner)? {
        Some(arena) => {
            let dropped = busy_to_nil(arena.drop_tensors(&buffers(tensors), may_wait))?;
            Ok(dropped.map(|()| atoms::ok()))
        }
        None if tensors.is_empty() => Ok(Some(atoms::ok())),
        None => Err(Error::Stale.into()),
    }
}

/// A buffer over a range of the arena, without an allocation.
#[rustler::nif]
fn arena_reshape<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: ArenaArg,
    dtype: Wire<DType>,
    dims: Dims,
    offset: u64,
) -> Pending<'a> {
    let (spec, pid) = (spec(env, dtype, dims, AllocOptions::default()), env.pid());
    run_on_device(env, tag, arena, move |arena, owner| {
        let arena = find_or_create(arena, pid, owner)?;
        Ok(handle(arena.reshape(spec, offset)?))
    })
}
