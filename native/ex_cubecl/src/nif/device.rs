//! `ExCubecl.Device`.

use ex_cubecl_core::DeviceId;
use ex_cubecl_core::registry;
use ex_cubecl_core::threads::worker::{CONTROL, MULTI_DEVICE};
use rustler::{Env, Reference};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::term::Wire;

#[rustler::nif]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[rustler::nif]
fn device_list<'a>(env: Env<'a>, tag: Reference<'a>) -> Pending<'a> {
    Call::new(env, tag).run_in(&CONTROL, || {
        let devices = registry::list()?.into_iter();
        Ok(devices.map(Wire).collect::<Vec<_>>())
    })
}

/// The ids of the devices that are in use.
#[rustler::nif]
fn device_list_open() -> Vec<Wire<DeviceId>> {
    registry::opened().into_iter().map(Wire).collect()
}

#[rustler::nif]
fn device_default<'a>(env: Env<'a>, tag: Reference<'a>) -> Pending<'a> {
    Call::new(env, tag).run_in(&CONTROL, || Ok(Wire(registry::default_id()?)))
}

#[rustler::nif]
fn device_reset<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| {
        registry::reset(device)?;
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn device_synchronize<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| {
        device.synchronize()?;
        Ok(atoms::ok())
    })
}

/// Opens `id` as a logical device on the adapter of device `on`.
#[rustler::nif]
fn device_open<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    on: Wire<DeviceId>,
    id: Wire<DeviceId>,
) -> Pending<'a> {
    Call::new(env, tag).run_in(&CONTROL, move || {
        Ok(Wire(registry::open_logical(on.0, id.0)?))
    })
}

/// It waits for the remaining work of the device.
#[rustler::nif]
fn device_remove<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_in(&MULTI_DEVICE, move || {
        registry::remove(id.0)?;
        Ok(atoms::ok())
    })
}
