//! `ExCubecl.Arena`.

use std::collections::HashSet;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use ex_cubecl_core::allocators::arena::{Arena, Growth};
use ex_cubecl_core::allocators::per_process_arenas::PerProcessArenas;
use ex_cubecl_core::{Buffer, DType, Device, DeviceId, Error};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Reference, Resource, ResourceArc};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifResult, busy_to_nil};
use crate::pid;
use crate::resource::{BufferRef, handle};
use crate::term::{AllocOptions, Dims, ListOf, Wire, spec};

/// The resource of an arena: one arena, or one for each process.
struct ArenaRef {
    kind: Kind,
}

enum Kind {
    One(Arc<Arena>),
    PerProcessArenas {
        parts: Arc<PerProcessArenas>,
        /// The processes that are monitored.
        watched: Mutex<HashSet<u64>>,
    },
}

#[rustler::resource_impl]
impl Resource for ArenaRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if let Kind::PerProcessArenas { parts, watched } = &self.kind {
            let owner = pid::key(env, pid);
            watched.lock().remove(&owner);
            // Freeing an arena may wait for a call that uses it.
            let (parts, worker) = (parts.clone(), parts.device().clone());
            let _ = worker.worker().run(move || parts.release(owner));
        }
    }
}

// As for buffers: the locks do not poison, and each change under one is a single step.
impl UnwindSafe for ArenaRef {}
impl RefUnwindSafe for ArenaRef {}

type Ref = ResourceArc<ArenaRef>;
type Tensor = ResourceArc<BufferRef>;

impl ArenaRef {
    fn device(&self) -> &Arc<Device> {
        match &self.kind {
            Kind::One(arena) => arena.device(),
            Kind::PerProcessArenas { parts, .. } => parts.device(),
        }
    }

    /// The arena that a process has, if any.
    fn find(&self, owner: u64) -> Result<Option<Arc<Arena>>, Error> {
        match &self.kind {
            Kind::One(arena) => Ok(Some(arena.clone())),
            Kind::PerProcessArenas { parts, .. } => parts.find(owner),
        }
    }
}

/// The arena of a process, made and its process monitored if it has none.
fn find_or_create(arena: &Ref, pid: LocalPid, owner: u64) -> Result<Arc<Arena>, Error> {
    let (parts, watched) = match &arena.kind {
        Kind::One(arena) => return Ok(arena.clone()),
        Kind::PerProcessArenas { parts, watched } => (parts, watched),
    };
    let found = parts.find_or_create(owner)?;
    if watched.lock().insert(owner) && arena.monitor(None, &pid).is_none() {
        watched.lock().remove(&owner);
        parts.release(owner);
        return Err(Error::Stale);
    }
    Ok(found)
}

/// Runs `work` on the thread of the arena's device, with the key of the calling process.
fn on<'a, T: Encoder>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: Ref,
    work: impl FnOnce(&Ref, u64) -> NifResult<'static, T> + Send + 'static,
) -> Pending<'a> {
    let (device, owner) = (arena.device().clone(), pid::caller(env));
    Call::new(env, tag).run(&device, move || work(&arena, owner))
}

#[rustler::nif]
fn arena_new<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    bytes: u64,
    growth: Atom,
    options: AllocOptions,
) -> Pending<'a> {
    let growth = match growth {
        growth if growth == atoms::fixed() => Growth::Fixed,
        growth if growth == atoms::measuring() => Growth::Measuring,
        _ => Growth::Extendable,
    };
    let spec = spec(env, Wire(DType::U8), Dims(vec![bytes]), options);
    Call::new(env, tag).run_on(id.0, move |device| {
        let arena = Arc::new(Arena::new(device.clone(), spec, growth)?);
        let kind = Kind::One(arena);
        Ok(ResourceArc::new(ArenaRef { kind }))
    })
}

#[rustler::nif]
fn arena_per_process<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    bytes: u64,
    max: u64,
    extendable: bool,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, Wire(DType::U8), Dims(vec![bytes]), options);
    Call::new(env, tag).run_on(id.0, move |device| {
        let parts = PerProcessArenas::new(device.clone(), spec, max, extendable)?;
        let kind = Kind::PerProcessArenas {
            parts: Arc::new(parts),
            watched: Mutex::default(),
        };
        Ok(ResourceArc::new(ArenaRef { kind }))
    })
}

/// `nil` if the tensor needs new memory, or the call would block.
#[rustler::nif]
fn arena_alloc<'a>(
    env: Env<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
) -> NifResult<'a, Option<Tensor>> {
    let Some(arena) = arena.find(pid::caller(env))? else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, AllocOptions::default());
    let tensor = busy_to_nil(arena.alloc(spec, false))?;
    tensor.map(|tensor| handle(Ok(tensor))).transpose()
}

#[rustler::nif]
fn arena_alloc_wait<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
) -> Pending<'a> {
    let (spec, pid) = (spec(env, dtype, dims, AllocOptions::default()), env.pid());
    on(env, tag, arena, move |arena, owner| {
        handle(find_or_create(arena, pid, owner)?.alloc(spec, true))
    })
}

/// `nil` if the call would block, or there are too many tensors to drop on a scheduler.
#[rustler::nif]
fn arena_drop(
    env: Env<'_>,
    arena: Ref,
    tensors: ListOf<Tensor>,
) -> NifResult<'static, Option<Atom>> {
    drop_tensors(&arena, pid::caller(env), &tensors, false)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn arena_drop_wait<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: Ref,
    tensors: ListOf<Tensor>,
) -> Pending<'a> {
    on(env, tag, arena, move |arena, owner| {
        drop_tensors(arena, owner, &tensors, true)
    })
}

fn drop_tensors(
    arena: &Ref,
    owner: u64,
    tensors: &[Tensor],
    may_wait: bool,
) -> NifResult<'static, Option<Atom>> {
    let tensors: Vec<&Buffer> = tensors.iter().map(|tensor| &tensor.0).collect();
    match arena.find(owner)? {
        Some(arena) => {
            Ok(busy_to_nil(arena.drop_tensors(&tensors, may_wait))?.map(|()| atoms::ok()))
        }
        None if tensors.is_empty() => Ok(Some(atoms::ok())),
        None => Err(Error::Stale.into()),
    }
}

#[rustler::nif]
fn arena_window<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: Ref,
    dtype: Wire<DType>,
    dims: Dims,
    offset: u64,
) -> Pending<'a> {
    let (spec, pid) = (spec(env, dtype, dims, AllocOptions::default()), env.pid());
    on(env, tag, arena, move |arena, owner| {
        handle(find_or_create(arena, pid, owner)?.window(spec, offset))
    })
}

/// Resets the arena. An arena of one process is freed.
#[rustler::nif]
fn arena_reset<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, owner| {
        match &arena.kind {
            Kind::One(arena) => arena.reset()?,
            Kind::PerProcessArenas { parts, .. } => parts.release(owner),
        }
        Ok(atoms::ok())
    })
}

/// Frees the arena; of an arena for each process, only that of the calling process.
#[rustler::nif]
fn arena_release<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, owner| {
        match &arena.kind {
            Kind::One(arena) => arena.release(),
            Kind::PerProcessArenas { parts, .. } => parts.release(owner),
        }
        Ok(atoms::ok())
    })
}

/// Frees the arenas of all processes. No new ones can be made afterwards.
#[rustler::nif]
fn arena_free<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, _| {
        match &arena.kind {
            Kind::One(arena) => arena.release(),
            Kind::PerProcessArenas { parts, .. } => parts.release_all(),
        }
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn arena_used<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, owner| match arena.find(owner)? {
        Some(arena) => Ok(arena.used()?),
        None => Ok(0),
    })
}

/// `nil` for a process that has no arena yet.
#[rustler::nif]
fn arena_capacity<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, owner| match arena.find(owner)? {
        Some(arena) => Ok(Some(arena.capacity()?)),
        None => Ok(None),
    })
}

#[rustler::nif]
fn arena_peak<'a>(env: Env<'a>, tag: Reference<'a>, arena: Ref) -> Pending<'a> {
    on(env, tag, arena, |arena, owner| {
        Ok(arena.find(owner)?.map_or(0, |arena| arena.peak()))
    })
}

#[rustler::nif]
fn arena_extendable(arena: Ref) -> bool {
    match &arena.kind {
        Kind::One(arena) => arena.is_extendable(),
        Kind::PerProcessArenas { parts, .. } => parts.is_extendable(),
    }
}

#[rustler::nif]
fn arena_set_extendable(arena: Ref, extendable: bool) -> NifResult<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.set_extendable(extendable),
        Kind::PerProcessArenas { parts, .. } => parts.set_extendable(extendable),
    }
    Ok(atoms::ok())
}
