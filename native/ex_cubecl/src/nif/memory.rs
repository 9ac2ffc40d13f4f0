//! `ExCubecl.Memory`.

use ex_cubecl_core::heap::PageInfo;
use ex_cubecl_core::ledger::{Entry, Report};
use ex_cubecl_core::meter::{Usage, Watcher, watch_frees};
use ex_cubecl_core::pool::Stats;
use ex_cubecl_core::{DType, DeviceId, device, shared_pools};
use rustler::{Atom, Encoder, Env, LocalPid, ResourceArc, Term};

use crate::atoms;
use crate::error::{Answer, soon};
use crate::pid;
use crate::post::post;
use crate::resource::{BufferRef, held, unwatch};
use crate::term::{Dims, Note, Wire, spec};

#[rustler::nif(schedule = "DirtyIo")]
fn memory_usage(id: Wire<DeviceId>) -> Answer<'static, Wire<(Usage, u64)>> {
    Ok(Wire(device::open(id.0)?.usage()?))
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_total(id: Wire<DeviceId>) -> Answer<'static, Option<u64>> {
    Ok(device::open(id.0)?.info.total_memory)
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_set_limit(id: Wire<DeviceId>, limit: Option<u64>) -> Answer<'static, Atom> {
    device::open(id.0)?.set_limit(limit);
    Ok(atoms::ok())
}

/// The limit that a device starts with; an open one keeps what it has.
#[rustler::nif]
fn memory_first_limit(id: Wire<DeviceId>, limit: u64) -> Answer<'static, Atom> {
    device::set_first_limit(id.0, limit);
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_report(id: Wire<DeviceId>, most: u64) -> Answer<'static, Wire<Report>> {
    Ok(Wire(device::open(id.0)?.report(most as usize)))
}

type Map = (Vec<Wire<PageInfo>>, Vec<Wire<Entry>>);

/// The pages of a device, and its largest allocations.
#[rustler::nif(schedule = "DirtyIo")]
fn memory_map(id: Wire<DeviceId>, most: u64) -> Answer<'static, Map> {
    let (pages, entries) = device::open(id.0)?.map(most as usize);
    Ok((
        pages.into_iter().map(Wire).collect(),
        entries.into_iter().map(Wire).collect(),
    ))
}

/// The devices that are open.
#[rustler::nif]
fn memory_open() -> Vec<Wire<DeviceId>> {
    device::opened().into_iter().map(Wire).collect()
}

/// The processes that made what is live, with its bytes, the one with the most first.
#[rustler::nif(schedule = "DirtyIo")]
fn memory_owners<'a>(env: Env<'a>, id: Wire<DeviceId>) -> Answer<'a, Vec<(Term<'a>, u64)>> {
    let report = device::open(id.0)?.report(0);
    let owners = report.by_owner.into_iter();
    Ok(owners
        .map(|(owner, sum)| (pid::term(env, owner), sum.bytes))
        .collect())
}

/// Counts an allocation that failed for good, and tells what is live and its limit.
#[rustler::nif(schedule = "DirtyIo")]
fn memory_failed(id: Wire<DeviceId>) -> Answer<'static, (u64, Option<u64>)> {
    let device = device::open(id.0)?;
    device.count_failure();
    let usage = device.account();
    Ok((usage.live_bytes, usage.limit))
}

/// Live bytes, without asking the device.
#[rustler::nif(schedule = "DirtyIo")]
fn memory_live(id: Wire<DeviceId>) -> Answer<'static, u64> {
    Ok(device::open(id.0)?.account().live_bytes)
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_reclaim(id: Wire<DeviceId>) -> Answer<'static, u64> {
    Ok(device::open(id.0)?.reclaim()?)
}

/// A buffer of a shared pool that is kept there, or `nil`, also where that would have to wait.
#[rustler::nif]
fn memory_take<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    note: Note,
) -> Answer<'a, Option<ResourceArc<BufferRef>>> {
    let Some(device) = device::find_open(id.0) else {
        return Ok(None);
    };
    let spec = spec(env, dtype, dims, note);
    let Some(pool) = shared_pools::try_find(&device, &spec, max) else {
        return Ok(None);
    };
    let taken = pool.take(&spec.label)?;
    Ok(taken.map(|buffer| held(env, buffer, env.pid())))
}

/// As `memory_take`, or a new one.
#[rustler::nif(schedule = "DirtyIo")]
fn memory_get<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    note: Note,
) -> Answer<'a, ResourceArc<BufferRef>> {
    let device = device::open(id.0)?;
    let spec = spec(env, dtype, dims, note);
    let label = spec.label.clone();
    let buffer = shared_pools::find_or_make(&device, spec, max)?.check_out(&label)?;
    Ok(held(env, buffer, env.pid()))
}

#[rustler::nif]
fn memory_return(env: Env<'_>, buffer: ResourceArc<BufferRef>) -> Answer<'static, Option<Atom>> {
    returned(env, &buffer, false)
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_return_wait(
    env: Env<'_>,
    buffer: ResourceArc<BufferRef>,
) -> Answer<'static, Option<Atom>> {
    returned(env, &buffer, true)
}

fn returned(
    env: Env<'_>,
    buffer: &ResourceArc<BufferRef>,
    wait: bool,
) -> Answer<'static, Option<Atom>> {
    let back = soon(shared_pools::check_in(&buffer.0, wait))?;
    Ok(back.map(|()| {
        unwatch(env, buffer);
        atoms::ok()
    }))
}

/// Device, bytes of each buffer, whether they are persistent, counts.
type SharedPool = (Wire<DeviceId>, u64, bool, Wire<Stats>);

#[rustler::nif]
fn memory_stats() -> Answer<'static, Vec<SharedPool>> {
    let stats = shared_pools::stats().into_iter();
    Ok(stats
        .map(|(id, bytes, persistent, stats)| (Wire(id), bytes, persistent, Wire(stats)))
        .collect())
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_reset_peak(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::open(id.0)?.reset_peak();
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_trim(id: Wire<DeviceId>) -> Answer<'static, u64> {
    Ok(device::open(id.0)?.trim()?)
}

/// Sends `{freed, allocation, microseconds}` to a process for everything that is freed, or to nobody.
#[rustler::nif]
fn memory_watch(pid: Option<LocalPid>) -> Answer<'static, Atom> {
    watch_frees(pid.map(|pid| -> Watcher {
        Box::new(move |entry| {
            let (entry, lived) = (entry.clone(), entry.since.elapsed().as_micros() as u64);
            post(pid, move |env| {
                (atoms::freed(), Wire(entry), lived).encode(env)
            });
        })
    }));
    Ok(atoms::ok())
}
