//! `ExCubecl.Memory`.

use ex_cubecl_core::DeviceId;
use ex_cubecl_core::memory::allocation_tracker::{Record, Report};
use ex_cubecl_core::memory::heap::PageInfo;
use ex_cubecl_core::memory::watcher::{self, Report as FreeReport};
use ex_cubecl_core::registry;
use rustler::{Atom, Encoder, Env, LocalPid, Reference, Term};

use crate::atoms;
use crate::call::{Call, MaybePending, Pending, when_open};
use crate::error::NifResult;
use crate::notifier::notify;
use crate::pid;
use crate::term::Wire;

#[rustler::nif]
fn memory_usage<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(Wire(device.usage()?)))
}

#[rustler::nif]
fn memory_total<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, MaybePending<Option<u64>>> {
    when_open(env, tag, id.0, |device| Ok(device.info.total_memory))
}

#[rustler::nif]
fn memory_set_limit<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    limit: Option<u64>,
) -> NifResult<'a, MaybePending<Atom>> {
    when_open(env, tag, id.0, move |device| {
        device.set_limit(limit);
        Ok(atoms::ok())
    })
}

/// Sets the limit with which a device is opened. A device that is open keeps its limit.
#[rustler::nif]
fn memory_set_initial_limit(id: Wire<DeviceId>, limit: u64) -> NifResult<'static, Atom> {
    registry::set_initial_limit(id.0, limit);
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyCpu")]
fn memory_report<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    max: u64,
) -> NifResult<'a, MaybePending<Wire<Report>>> {
    when_open(env, tag, id.0, move |device| {
        Ok(Wire(device.report(max as usize)))
    })
}

type Map = (Vec<Wire<PageInfo>>, Vec<Wire<Record>>);

/// The pages of a device, and its largest allocations.
#[rustler::nif(schedule = "DirtyCpu")]
fn memory_map<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    max: u64,
) -> NifResult<'a, MaybePending<Map>> {
    when_open(env, tag, id.0, move |device| {
        let (pages, records) = device.map(max as usize);
        Ok((
            pages.into_iter().map(Wire).collect(),
            records.into_iter().map(Wire).collect(),
        ))
    })
}

/// The owners of live allocations with their bytes, in descending order of bytes.
#[rustler::nif(schedule = "DirtyCpu")]
fn memory_owners<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, MaybePending<Vec<(Owner, u64)>>> {
    when_open(env, tag, id.0, |device| {
        let owners = device.report(0).by_owner.into_iter();
        Ok(owners
            .map(|(owner, sum)| (Owner(owner), sum.bytes))
            .collect())
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
fn memory_count_failure<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, MaybePending<(u64, Option<u64>)>> {
    when_open(env, tag, id.0, |device| {
        device.count_failure();
        let usage = device.account();
        Ok((usage.live_bytes, usage.limit))
    })
}

/// Live bytes, without calling the driver.
#[rustler::nif]
fn memory_live_bytes<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, MaybePending<u64>> {
    when_open(env, tag, id.0, |device| Ok(device.account().live_bytes))
}

#[rustler::nif]
fn memory_reclaim<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(device.reclaim()?))
}

#[rustler::nif]
fn memory_reset_peak<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
) -> NifResult<'a, MaybePending<Atom>> {
    when_open(env, tag, id.0, |device| {
        device.reset_peak();
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn memory_trim<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(device.trim()?))
}

/// Sends `{freed, allocation, microseconds}` to a process for every allocation that is freed, as
/// long as not too many of these messages wait; `nil` stops it.
#[rustler::nif]
fn memory_watch_frees(pid: Option<LocalPid>) -> NifResult<'static, Atom> {
    watcher::watch_frees(pid.map(|pid| -> FreeReport {
        Box::new(move |record| {
            let lifetime = record.since.elapsed().as_micros() as u64;
            let record = record.clone();
            notify(pid, move |env| {
                (atoms::freed(), Wire(record), lifetime).encode(env)
            });
        })
    }));
    Ok(atoms::ok())
}

/// Acknowledges a message of `memory_watch_frees`, and returns how many frees it left out since the
/// last acknowledgement, because too many messages waited.
#[rustler::nif]
fn memory_acknowledge_free() -> NifResult<'static, u64> {
    Ok(watcher::acknowledge())
}
