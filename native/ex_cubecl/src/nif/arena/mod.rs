//! `ExCubecl.Arena`.

mod tensors;

use std::collections::HashSet;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use ex_cubecl_core::allocators::arena::{Arena, Growth};
use ex_cubecl_core::allocators::per_process_arenas::PerProcessArenas;
use ex_cubecl_core::{DType, Device, DeviceId, Error};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Reference, Resource, ResourceArc};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::pid;
use crate::term::{AllocOptions, Dims, Wire, spec};

/// The resource of an arena: one arena, or one for each process.
struct ArenaRef {
    kind: Kind,
}

enum Kind {
    One(Arc<Arena>),
    PerProcess {
        arenas: Arc<PerProcessArenas>,
        /// The keys of the processes that are monitored.
        monitored: Mutex<HashSet<u64>>,
    },
}

#[rustler::resource_impl]
impl Resource for ArenaRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if let Kind::PerProcess { arenas, monitored } = &self.kind {
            let owner = pid::key(env, pid);
            monitored.lock().remove(&owner);
            // Freeing an arena may wait for a call that uses it.
            let (arenas, device) = (arenas.clone(), arenas.device().clone());
            let _ = device.worker().run(move || arenas.release(owner));
        }
    }
}

// As for buffers: the locks do not poison, and each change under one is a single step.
impl UnwindSafe for ArenaRef {}
impl RefUnwindSafe for ArenaRef {}

type ArenaArg = ResourceArc<ArenaRef>;

impl ArenaRef {
    fn device(&self) -> &Arc<Device> {
        match &self.kind {
            Kind::One(arena) => arena.device(),
            Kind::PerProcess { arenas, .. } => arenas.device(),
        }
    }

    /// The arena that a process has, if any.
    fn find(&self, owner: u64) -> Result<Option<Arc<Arena>>, Error> {
        match &self.kind {
            Kind::One(arena) => Ok(Some(arena.clone())),
            Kind::PerProcess { arenas, .. } => arenas.find(owner),
        }
    }
}

/// The arena of a process, made and its process monitored if it has none.
fn find_or_create(arena: &ArenaArg, pid: LocalPid, owner: u64) -> Result<Arc<Arena>, Error> {
    let (arenas, monitored) = match &arena.kind {
        Kind::One(arena) => return Ok(arena.clone()),
        Kind::PerProcess { arenas, monitored } => (arenas, monitored),
    };
    let found = arenas.find_or_create(owner)?;
    if monitored.lock().insert(owner) && arena.monitor(None, &pid).is_none() {
        monitored.lock().remove(&owner);
        arenas.release(owner);
        return Err(Error::Stale);
    }
    Ok(found)
}

/// Runs `work` on the thread of the arena's device, with the key of the calling process.
fn run_on_device<'a, T: Encoder>(
    env: Env<'a>,
    tag: Reference<'a>,
    arena: ArenaArg,
    work: impl FnOnce(&ArenaArg, u64) -> NifResult<'static, T> + Send + 'static,
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
        let arenas = PerProcessArenas::new(device.clone(), spec, max, extendable)?;
        let kind = Kind::PerProcess {
            arenas: Arc::new(arenas),
            monitored: Mutex::default(),
        };
        Ok(ResourceArc::new(ArenaRef { kind }))
    })
}

/// Resets the arena. Of an arena for each process, that of the calling process is freed.
#[rustler::nif]
fn arena_reset<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, owner| {
        match &arena.kind {
            Kind::One(arena) => arena.reset()?,
            Kind::PerProcess { arenas, .. } => arenas.release(owner),
        }
        Ok(atoms::ok())
    })
}

/// Frees the arena. Of an arena for each process, only that of the calling process is freed.
#[rustler::nif]
fn arena_release<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, owner| {
        match &arena.kind {
            Kind::One(arena) => arena.release(),
            Kind::PerProcess { arenas, .. } => arenas.release(owner),
        }
        Ok(atoms::ok())
    })
}

/// Frees the arenas of all processes. No new ones can be made afterwards.
#[rustler::nif]
fn arena_free<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, _| {
        match &arena.kind {
            Kind::One(arena) => arena.release(),
            Kind::PerProcess { arenas, .. } => arenas.release_all(),
        }
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn arena_used<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, owner| match arena.find(owner)? {
        Some(arena) => Ok(arena.used()?),
        None => Ok(0),
    })
}

/// `nil` for a process that has no arena yet.
#[rustler::nif]
fn arena_capacity<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, owner| match arena.find(owner)? {
        Some(arena) => Ok(Some(arena.capacity()?)),
        None => Ok(None),
    })
}

#[rustler::nif]
fn arena_peak<'a>(env: Env<'a>, tag: Reference<'a>, arena: ArenaArg) -> Pending<'a> {
    run_on_device(env, tag, arena, |arena, owner| {
        Ok(arena.find(owner)?.map_or(0, |arena| arena.peak()))
    })
}

#[rustler::nif]
fn arena_extendable(arena: ArenaArg) -> bool {
    match &arena.kind {
        Kind::One(arena) => arena.is_extendable(),
        Kind::PerProcess { arenas, .. } => arenas.is_extendable(),
    }
}

#[rustler::nif]
fn arena_set_extendable(arena: ArenaArg, extendable: bool) -> NifResult<'static, Atom> {
    match &arena.kind {
        Kind::One(arena) => arena.set_extendable(extendable),
        Kind::PerProcess { arenas, .. } => arenas.set_extendable(extendable),
    }
    Ok(atoms::ok())
}
