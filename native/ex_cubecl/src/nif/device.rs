//! `ExCubecl.Device`.

use ex_cubecl_core::DeviceId;
use ex_cubecl_core::device::{self, Info};
use rustler::Atom;

use crate::atoms;
use crate::error::Answer;
use crate::term::Wire;

#[rustler::nif]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_list() -> Answer<'static, Vec<Wire<Info>>> {
    Ok(device::list()?.into_iter().map(Wire).collect())
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_default() -> Answer<'static, Wire<DeviceId>> {
    Ok(Wire(device::default_id()?))
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_reset(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::reset(id.0)?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_synchronize(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::open(id.0)?.synchronize()?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_add(on: Wire<DeviceId>, id: Wire<DeviceId>) -> Answer<'static, Wire<Info>> {
    Ok(Wire(device::add(on.0, id.0)?))
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_remove(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::remove(id.0)?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn device_open(id: Wire<DeviceId>) -> Answer<'static, Atom> {
    device::open(id.0)?;
    Ok(atoms::ok())
}
