//! `ExCubecl.Memory`.

use ex_cubecl_core::DeviceId;
use ex_cubecl_core::device;
use ex_cubecl_core::meter::Usage;
use rustler::Atom;

use crate::atoms;
use crate::error::Answer;
use crate::term::Wire;

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

#[rustler::nif(schedule = "DirtyIo")]
fn memory_reset_peak(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::open(id.0)?.reset_peak();
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn memory_trim(id: Wire<DeviceId>) -> Answer<'static, u64> {
    Ok(device::open(id.0)?.trim()?)
}
