//! `ExCubecl.Arena`.

use std::collections::HashSet;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use ex_cubecl_core::arena::{Arena, Growth};
use ex_cubecl_core::device;
use ex_cubecl_core::parts::Parts;
use ex_cubecl_core::{Buffer, DType, DeviceId, Error};
use parking_lot::Mutex;
use rustler::{Atom, Env, LocalPid, Monitor, Resource, ResourceArc};

use crate::atoms;
use crate::error::{Answer, soon};
use crate::pid;
use crate::resource::{BufferRef, handle};
use crate::term::{Dims, ListOf, Note, Wire, spec};

/// One arena, or one for each process.
struct ArenaRef {
    kind: Kind,
}

enum Kind {
    One(Arc<Arena>),
    Parts {
        parts: Arc<Parts>,
        /// The processes whose end is awaited.
        watched: Mutex<HashSet<u64>>,
    },
}

#[rustler::resource_impl]
impl Resource for ArenaRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if let Kind::Parts { parts, watched } = &self.kind {
            let owner = pid::key(env, pid);
            watched.lock().remove(&owner);
            // Ending an arena may have to wait for a call that uses it.
            let (parts, worker) = (parts.clone(), parts.device().clone());
            let _ = worker.worker().run(move || parts.release(owner));
        }
    }
}

// As for buffers: no lock poisons, and each change under one is one step.
impl UnwindSafe for ArenaRef {}
impl RefUnwindSafe for ArenaRef {}

type Ref = ResourceArc<ArenaRef>;
type Tensor = ResourceArc<BufferRef>;

/// The arena that the calling process has, if any.
fn find(env: Env<'_>, arena: &Ref) -> Result<Option<Arc<Arena>>, Error> {
    match &arena.kind {
        Kind::One(arena) => Ok(Some(arena.clone())),
        Kind::Parts { parts, .. } => parts.find(pid::caller(env)),
    }
}

/// The arena that the calling process has from now on.
fn find_or_make(env: Env<'_>, arena: &Ref) -> Result<Arc<Arena>, Error> {
    let (parts, watched) = match &arena.kind {
        Kind::One(arena) => return Ok(arena.clone()),
        Kind::Parts { parts, watched } => (parts, watched),
    };
    let owner = pid::caller(env);
    let found = parts.find_or_make(owner)?;
    if watched.lock().insert(owner) && arena.monitor(Some(env), &env.pid()).is_none() {
        parts.release(owner);
        return Err(Error::Stale);
    }
    Ok(found)
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_new<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    bytes: u64,
    growth: Atom,
    note: Note,
) -> Answer<'a, Ref> {
    let growth = match growth {
        growth if growth == atoms::fixed() => Growth::Fixed,
        growth if growth == atoms::measuring() => Growth::Measuring,
        _ => Growth::Extendable,
    };
    let spec = spec(env, Wire(DType::U8), Dims(vec![bytes]), note);
    let arena = Arc::new(Arena::new(device::open(id.0)?, spec, growth)?);
    let kind = Kind::One(arena);
    Ok(ResourceArc::new(ArenaRef { kind }))
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_per_process<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    bytes: u64,
    max: u64,
    extendable: bool,
    note: Note,
) -> Answer<'a, Ref> {
    let spec = spec(env, Wire(DType::U8), Dims(vec![bytes]), note);
    let parts = Parts::new(device::open(id.0)?, spec, max, extendable)?;
    let kind = Kind::Parts {
        parts: Arc::new(parts),
        watched: Mutex::default(),
    };
    Ok(ResourceArc::new(ArenaRef { kind }))
}

/// `nil` where the tensor takes new memory.
#[rustler::nif]
fn arena_alloc<'a>(
    env: Env<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
) -> Answer<'a, Option<Tensor>> {
    let Some(arena) = find(env, &arena)? else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, Note::default());
    let tensor = soon(arena.alloc(spec, false))?;
    tensor.map(|tensor| handle(Ok(tensor))).transpose()
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_alloc_wait<'a>(
    env: Env<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
) -> Answer<'a, Tensor> {
    let arena = find_or_make(env, &arena)?;
    handle(arena.alloc(spec(env, dtype, dims, Note::default()), true))
}

/// `nil` where that would have to wait, or are many.
#[rustler::nif]
fn arena_drop(env: Env<'_>, arena: Ref, tensors: ListOf<Tensor>) -> Answer<'static, Option<Atom>> {
    drop_tensors(env, &arena, &tensors, false)
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_drop_wait(
    env: Env<'_>,
    arena: Ref,
    tensors: ListOf<Tensor>,
) -> Answer<'static, Option<Atom>> {
    drop_tensors(env, &arena, &tensors, true)
}

fn drop_tensors(
    env: Env<'_>,
    arena: &Ref,
    tensors: &[Tensor],
    may_wait: bool,
) -> Answer<'static, Option<Atom>> {
    let tensors: Vec<&Buffer> = tensors.iter().map(|tensor| &tensor.0).collect();
    match find(env, arena)? {
        Some(arena) => Ok(soon(arena.drop_tensors(&tensors, may_wait))?.map(|()| atoms::ok())),
        None if tensors.is_empty() => Ok(Some(atoms::ok())),
        None => Err(Error::Stale.into()),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_window<'a>(
    env: Env<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
    offset: u64,
) -> Answer<'a, Tensor> {
    let arena = find_or_make(env, &arena)?;
    handle(arena.window(spec(env, dtype, dims, Note::default()), offset))
}

/// The part of a process goes back altogether.
#[rustler::nif(schedule = "DirtyIo")]
fn arena_reset(env: Env<'_>, arena: Ref) -> Answer<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.reset()?,
        Kind::Parts { parts, .. } => parts.release(pid::caller(env)),
    }
    Ok(atoms::ok())
}

/// Frees what the calling process has.
#[rustler::nif(schedule = "DirtyIo")]
fn arena_release(env: Env<'_>, arena: Ref) -> Answer<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.release(),
        Kind::Parts { parts, .. } => parts.release(pid::caller(env)),
    }
    Ok(atoms::ok())
}

/// Frees what all processes have, for good.
#[rustler::nif(schedule = "DirtyIo")]
fn arena_free(arena: Ref) -> Answer<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.release(),
        Kind::Parts { parts, .. } => parts.release_all(),
    }
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_used(env: Env<'_>, arena: Ref) -> Answer<'static, u64> {
    match find(env, &arena)? {
        Some(arena) => Ok(arena.used()?),
        None => Ok(0),
    }
}

/// `nil` for a process that has no part yet.
#[rustler::nif(schedule = "DirtyIo")]
fn arena_capacity(env: Env<'_>, arena: Ref) -> Answer<'static, Option<u64>> {
    match find(env, &arena)? {
        Some(arena) => Ok(Some(arena.capacity()?)),
        None => Ok(None),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn arena_peak(env: Env<'_>, arena: Ref) -> Answer<'static, u64> {
    Ok(find(env, &arena)?.map_or(0, |arena| arena.peak()))
}

#[rustler::nif]
fn arena_extendable(arena: Ref) -> bool {
    match &arena.kind {
        Kind::One(arena) => arena.is_extendable(),
        Kind::Parts { parts, .. } => parts.is_extendable(),
    }
}

#[rustler::nif]
fn arena_set_extendable(arena: Ref, extendable: bool) -> Answer<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.set_extendable(extendable),
        Kind::Parts { parts, .. } => parts.set_extendable(extendable),
    }
    Ok(atoms::ok())
}
