//! `ExCubecl.Memory`.

use ex_cubecl_core::allocators::pool::Stats;
use ex_cubecl_core::allocators::shared_pools;
use ex_cubecl_core::memory::allocation_tracker::{Record, Report};
use ex_cubecl_core::memory::heap::PageInfo;
use ex_cubecl_core::memory::meter::{Watcher, watch_frees};
use ex_cubecl_core::registry;
use ex_cubecl_core::{DType, DeviceId};
use rustler::{Atom, Encoder, Env, LocalPid, Reference, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Later, Pending, ask};
use crate::error::{NifResult, busy_to_nil};
use crate::notifier::notify;
use crate::pid;
use crate::resource::{BufferRef, held, unwatch};
use crate::term::{AllocOptions, Dims, Wire, spec};

#[rustler::nif]
fn memory_usage<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(Wire(device.usage()?)))
}

#[rustler::nif]
fn memory_total<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, Later<Option<u64>>> {
    ask(env, tag, id.0, |device| device.info.total_memory)
}

#[rustler::nif]
fn memory_set_limit<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    limit: Option<u64>,
) -> NifResult<'a, Later<Atom>> {
    ask(env, tag, id.0, move |device| {
        device.set_limit(limit);
        atoms::ok()
    })
}

/// Sets the limit with which a device is opened. A device that is open keeps its limit.
#[rustler::nif]
fn memory_first_limit(id: Wire<DeviceId>, limit: u64) -> NifResult<'static, Atom> {
    registry::set_first_limit(id.0, limit);
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyCpu")]
fn memory_report<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    most: u64,
) -> NifResult<'a, Later<Wire<Report>>> {
    ask(env, tag, id.0, move |device| {
        Wire(device.report(most as usize))
    })
}

type Map = (Vec<Wire<PageInfo>>, Vec<Wire<Record>>);

/// The pages of a device, and its largest allocations.
#[rustler::nif(schedule = "DirtyCpu")]
fn memory_map<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    most: u64,
) -> NifResult<'a, Later<Map>> {
    ask(env, tag, id.0, move |device| {
        let (pages, entries) = device.map(most as usize);
        (
            pages.into_iter().map(Wire).collect(),
            entries.into_iter().map(Wire).collect(),
        )
    })
}

/// The devices that are open.
#[rustler::nif]
fn memory_open() -> Vec<Wire<DeviceId>> {
    registry::opened().into_iter().map(Wire).collect()
}

/// The owners of live allocations with their bytes, in descending order of bytes.
#[rustler::nif(schedule = "DirtyCpu")]
fn memory_owners<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, Later<Vec<(Owner, u64)>>> {
    ask(env, tag, id.0, |device| {
        let owners = device.report(0).by_owner.into_iter();
        owners
            .map(|(owner, sum)| (Owner(owner), sum.bytes))
            .collect()
    })
}

/// A process, by its key.
struct Owner(u64);

impl Encoder for Owner {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        pid::term(env, self.0)
    }
}

/// Counts an allocation that failed and is not retried, and returns the live bytes and the limit.
#[rustler::nif]
fn memory_failed<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, Later<(u64, Option<u64>)>> {
    ask(env, tag, id.0, |device| {
        device.count_failure();
        let usage = device.account();
        (usage.live_bytes, usage.limit)
    })
}

/// Live bytes, without calling the driver.
#[rustler::nif]
fn memory_live<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, Later<u64>> {
    ask(env, tag, id.0, |device| device.account().live_bytes)
}

#[rustler::nif]
fn memory_reclaim<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(device.reclaim()?))
}

/// An idle buffer of a shared pool, or `nil` if there is none or the call would block.
#[rustler::nif]
fn memory_take<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    options: AllocOptions,
) -> NifResult<'a, Option<ResourceArc<BufferRef>>> {
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, options);
    let Some(pool) = shared_pools::try_find(&device, &spec, max) else {
        return Ok(None);
    };
    let taken = pool.take(&spec.label)?;
    Ok(taken.map(|buffer| held(Some(env), buffer, env.pid())))
}

/// An idle or a new buffer of a shared pool.
#[rustler::nif]
fn memory_get<'a>(
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
        let label = spec.label.clone();
        let buffer = shared_pools::find_or_create(device, spec, max)?.check_out(&label)?;
        Ok(held(None, buffer, holder))
    })
}

#[rustler::nif]
fn memory_return(env: Env<'_>, buffer: ResourceArc<BufferRef>) -> NifResult<'static, Option<Atom>> {
    returned(Some(env), &buffer, false)
}

#[rustler::nif]
fn memory_return_wait<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: ResourceArc<BufferRef>,
) -> Pending<'a> {
    let device = buffer.0.device().clone();
    Call::new(env, tag).run(&device, move || returned(None, &buffer, true))
}

fn returned(
    env: Option<Env<'_>>,
    buffer: &ResourceArc<BufferRef>,
    wait: bool,
) -> NifResult<'static, Option<Atom>> {
    let back = busy_to_nil(shared_pools::check_in(&buffer.0, wait))?;
    Ok(back.map(|()| {
        unwatch(env, buffer);
        atoms::ok()
    }))
}

/// Device, bytes of each buffer, whether the buffers are persistent, and the pool's stats.
type SharedPool = (Wire<DeviceId>, u64, bool, Wire<Stats>);

#[rustler::nif]
fn memory_stats() -> NifResult<'static, Vec<SharedPool>> {
    let stats = shared_pools::stats().into_iter();
    Ok(stats
        .map(|(id, bytes, persistent, stats)| (Wire(id), bytes, persistent, Wire(stats)))
        .collect())
}

#[rustler::nif]
fn memory_reset_peak<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, Later<Atom>> {
    ask(env, tag, id.0, |device| {
        device.reset_peak();
        atoms::ok()
    })
}

#[rustler::nif]
fn memory_trim<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(device.trim()?))
}

/// Sends `{freed, allocation, microseconds}` to a process for every allocation that is freed; `nil`
/// stops it.
#[rustler::nif]
fn memory_watch(pid: Option<LocalPid>) -> NifResult<'static, Atom> {
    watch_frees(pid.map(|pid| -> Watcher {
        Box::new(move |entry| {
            let (entry, lived) = (entry.clone(), entry.since.elapsed().as_micros() as u64);
            notify(pid, move |env| {
                (atoms::freed(), Wire(entry), lived).encode(env)
            });
        })
    }));
    Ok(atoms::ok())
}
