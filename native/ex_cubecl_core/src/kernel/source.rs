//! Kernels written in WGSL: parsed and checked before a device sees them.

#[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
pub(crate) mod bounds;

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::locks::Locks;
use crate::runtime;

/// The number of workgroups along an axis that every device supports.
const MOST_GROUPS: u32 = 65_535;

/// A WGSL source that passed its checks.
#[derive(Debug, Clone)]
pub struct Source {
    pub text: String,
    pub entry: String,
    pub interface: Interface,
}

/// The interface that a source declares.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Whether each buffer is written, in the order of the bindings.
    pub writes: Vec<bool>,
    /// The workgroup size.
    pub threads: [u32; 3],
    /// Bytes of the private variables of each thread.
    pub variables: u64,
    /// Bytes of workgroup memory.
    pub shared: u64,
}

impl Source {
    /// Parses and checks a source. It blocks meanwhile, for at most half a minute, whatever the text is.
    ///
    /// The entry point is a compute shader, with the workgroup size `threads` if that is given; its buffers
    /// are the bindings 0, 1, 2, ... of bind group 0.
    pub fn new(text: String, entry: String, threads: Option<[u32; 3]>) -> Result<Source> {
        let interface = runtime::parse_source(&text, &entry)?;
        let found = interface.threads;
        match threads {
            Some(threads) if threads != found => Err(bad(format!(
                "the workgroup of {entry} is {found:?} in the source, not {threads:?}"
            ))),
            _ => Ok(Source {
                text,
                entry,
                interface,
            }),
        }
    }

    /// Runs the source with `groups` workgroups per axis. No thread reads or writes a byte outside the buffers.
    pub fn run(&self, buffers: &[&Buffer], groups: [u32; 3]) -> Result<()> {
        let [first, ..] = buffers else {
            return Err(bad("a source without a buffer"));
        };
        if buffers.len() != self.interface.writes.len() {
            return Err(bad(format!(
                "{} buffers: the source binds {}",
                buffers.len(),
                self.interface.writes.len()
            )));
        }
        if groups.iter().any(|groups| *groups > MOST_GROUPS) {
            return Err(bad(format!("more than {MOST_GROUPS} groups along an axis")));
        }
        let device = first.device();
        let driver = device.driver()?;
        let written = || {
            buffers
                .iter()
                .copied()
                .zip(self.interface.writes.iter().copied())
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
                return Err(bad("a buffer without elements"));
            }
            if writes && others.into_iter().any(|other| buffer.shares_bytes(other.1)) {
                return Err(Error::Overlap);
            }
        }
        let mut locks = Locks::wait_for(written());
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
                region.ok_or_else(|| bad("a buffer without elements"))
            })
            .collect::<Result<Vec<_>>>()?;
        device.explain(driver.run_source(self, &regions, groups))
    }
}

fn bad(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    let reason = reason.into();
    Error::BadKernel { reason }
}
