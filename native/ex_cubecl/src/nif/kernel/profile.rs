//! The time that kernels take on a device.

use ex_cubecl_core::DeviceId;
use ex_cubecl_core::driver::Clock;
use rustler::{Env, Reference};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::term::Wire;

#[rustler::nif]
fn kernel_profile_start<'a>(env: Env<'a>, tag: Reference<'a>, id: Wire<DeviceId>) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, |device| Ok(device.start_timing()?))
}

/// Nanoseconds, and the clock that measured them.
#[rustler::nif]
fn kernel_profile_stop<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    token: u64,
) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, move |device| {
        let time = device.stop_timing(token)?;
        let clock = match time.clock {
            Clock::Device => atoms::device(),
            Clock::Host => atoms::host(),
        };
        let nanoseconds = u64::try_from(time.passed.as_nanos());
        Ok((nanoseconds.unwrap_or(u64::MAX), clock))
    })
}
