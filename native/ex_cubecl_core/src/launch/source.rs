//! Runs of WGSL sources on buffers: the checks before a run, and the locks that it holds.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::locks::Locks;
use crate::program::source::Source;

/// The number of workgroups along an axis that every device supports.
const MOST_GROUPS: u32 = 65_535;

/// Runs the source with `groups` workgroups per axis. No thread reads or writes a byte outside the buffers.
pub fn run_source(source: &Source, buffers: &[&Buffer], groups: [u32; 3]) -> Result<()> {
    let [first, ..] = buffers else {
        return Err(Error::bad_kernel("a source without a buffer"));
    };
    if buffers.len() != source.interface.writes.len() {
        return Err(Error::bad_kernel(format!(
            "{} buffers: the source binds {}",
            buffers.len(),
            source.interface.writes.len()
        )));
    }
    if groups.iter().any(|groups| *groups > MOST_GROUPS) {
        return Err(Error::bad_kernel(format!(
            "more than {MOST_GROUPS} groups along an axis"
        )));
    }
    let device = first.device();
    let driver = device.driver()?;
    let written = || {
        buffers
            .iter()
            .copied()
            .zip(source.interface.writes.iter().copied())
    };
    for (at, (buffer, writes)) in written().enumerate() {
        if !Arc::ptr_eq(buffer.device(), device) {
            buffer.device().driver()?;
            return Err(Error::OtherDevice {
                device: buffer.device_id(),
                expected: device.id(),
            });
        }
        let others = buffers.iter().enumerate().filter(|other| other.0 != at);
        if buffer.count() == 0 {
            return Err(Error::bad_kernel("a buffer without elements"));
        }
        if writes && others.into_iter().any(|other| buffer.shares_bytes(other.1)) {
            return Err(Error::Overlap);
        }
    }
    let mut locks = Locks::lock(written());
    if groups.contains(&0) {
        return locks.check(written());
    }
    for (buffer, _) in written().filter(|written| written.1) {
        if let Some(content) = locks.content_mut(buffer) {
            buffer.modify_under(content, false, |_| Ok(()))?;
        }
    }
    let regions = buffers
        .iter()
        .map(|buffer| {
            let region = buffer.source(locks.content(buffer)?)?;
            region.ok_or_else(|| Error::bad_kernel("a buffer without elements"))
        })
        .collect::<Result<Vec<_>>>()?;
    device.explain(driver.run_source(source, &regions, groups))
}
