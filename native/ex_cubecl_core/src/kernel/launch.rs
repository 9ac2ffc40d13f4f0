//! A kernel on buffers: what is checked before it runs, and which locks it holds.

use std::sync::Arc;

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::tree::Program;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::{Argument, Driver};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ledger::Spec;
use crate::storage::{Content, Storage};

/// Positions are 32-bit integers inside of a kernel.
const MAX_POSITIONS: u64 = i32::MAX as u64;

/// A program that was found sound.
#[derive(Debug, Clone)]
pub struct Kernel(Arc<Program>);

enum Guard<'a> {
    Read(RwLockReadGuard<'a, Content>),
    Write(RwLockWriteGuard<'a, Content>),
}

impl Guard<'_> {
    fn content(&self) -> &Content {
        match self {
            Guard::Read(content) => content,
            Guard::Write(content) => content,
        }
    }
}

impl Kernel {
    pub fn new(program: Program) -> Result<Kernel> {
        match program.check() {
            Ok(()) => Ok(Kernel(Arc::new(program))),
            Err(reason) => Err(Error::BadKernel { reason }),
        }
    }

    pub fn program(&self) -> &Program {
        &self.0
    }

    /// Runs it over `positions` positions, into buffers that it makes: each of their elements is
    /// written by the position of its own.
    pub fn map(
        &self,
        device: &Arc<Device>,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: Vec<Spec>,
        positions: u64,
    ) -> Result<Vec<Buffer>> {
        let outputs = outputs.into_iter();
        let outputs: Vec<Buffer> = outputs
            .map(|spec| Buffer::lazy(device.clone(), spec))
            .collect::<Result<_>>()?;
        let all: Vec<&Buffer> = inputs.iter().copied().chain(&outputs).collect();
        self.check(device, &all, scalars, positions)?;
        // Nobody else has them: what the launch leaves out, or fails before, is never seen.
        let whole = outputs.iter().all(|output| output.count() == positions);
        self.run_on(device, &all, scalars, positions, whole)?;
        Ok(outputs)
    }

    /// Runs it over `positions` positions, into buffers that are there.
    pub fn run(
        &self,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: &[&Buffer],
        positions: u64,
    ) -> Result<()> {
        let Some(first) = outputs.first() else {
            return Err(Error::BadKernel {
                reason: "a kernel without an output",
            });
        };
        let device = first.device().clone();
        let all: Vec<&Buffer> = inputs.iter().chain(outputs).copied().collect();
        self.check(&device, &all, scalars, positions)?;
        self.run_on(&device, &all, scalars, positions, false)
    }

    fn check(
        &self,
        device: &Arc<Device>,
        buffers: &[&Buffer],
        scalars: &[u64],
        positions: u64,
    ) -> Result<()> {
        let program = &*self.0;
        let driver = device.driver()?;
        let (wanted, numbers) = (
            program.inputs.len() + program.outputs.len(),
            program.scalars.len(),
        );
        if buffers.len() != wanted || scalars.len() != numbers {
            return Err(Error::BadKernel {
                reason: "another number of arguments than the kernel has",
            });
        }
        for dtype in program.dtypes() {
            supported(device, driver, dtype)?;
        }
        let own = program.own();
        for (slot, buffer) in buffers.iter().enumerate() {
            if !Arc::ptr_eq(buffer.device(), device) {
                buffer.device().driver()?;
                return Err(Error::OtherDevice {
                    device: buffer.device_id(),
                    expected: device.id(),
                });
            }
            match program.buffer(slot) {
                Some(expected) if expected != buffer.dtype() => {
                    return Err(Error::TypeMismatch {
                        expected,
                        actual: buffer.dtype(),
                    });
                }
                _ => {}
            }
            if own.contains(&slot) && buffer.count() < positions {
                return Err(Error::ShapeMismatch {
                    expected: positions,
                    actual: buffer.count(),
                });
            }
            let is_output = slot >= program.inputs.len();
            let others = buffers.iter().enumerate().filter(|other| other.0 != slot);
            if is_output && others.into_iter().any(|other| buffer.shares_bytes(other.1)) {
                return Err(Error::Overlap);
            }
        }
        let most = buffers.iter().map(|buffer| buffer.count()).max();
        match most.unwrap_or(0).max(positions) > MAX_POSITIONS {
            true => Err(Error::BadKernel {
                reason: "more than 2,147,483,647 elements or positions",
            }),
            false => Ok(()),
        }
    }

    /// All storages are locked in the order of their ids, each once, so that two launches cannot
    /// wait for each other.
    fn run_on(
        &self,
        device: &Arc<Device>,
        buffers: &[&Buffer],
        scalars: &[u64],
        positions: u64,
        whole: bool,
    ) -> Result<()> {
        let inputs = self.0.inputs.len();
        let mut storages: Vec<(&Storage, bool)> = Vec::new();
        for (slot, buffer) in buffers.iter().enumerate() {
            let storage = &**buffer.storage();
            match storages.iter_mut().find(|known| known.0.id == storage.id) {
                Some(known) => known.1 |= slot >= inputs,
                None => storages.push((storage, slot >= inputs)),
            }
        }
        storages.sort_by_key(|known| known.0.id);
        let mut guards: Vec<(u64, Guard<'_>)> = storages
            .iter()
            .map(|(storage, written)| {
                let guard = match written {
                    true => Guard::Write(storage.write()),
                    false => Guard::Read(storage.read()),
                };
                (storage.id, guard)
            })
            .collect();
        for output in &buffers[inputs..] {
            let id = output.storage().id;
            let guard = guards.iter_mut().find(|known| known.0 == id);
            if let Some((_, Guard::Write(content))) = guard {
                output.modify_under(content, whole, |_| Ok(()))?;
            }
        }
        let arguments: Vec<Argument<'_>> = buffers
            .iter()
            .map(|buffer| {
                let id = buffer.storage().id;
                let guard = guards.iter().find(|known| known.0 == id);
                let content = guard.map(|known| known.1.content());
                Ok(Argument {
                    region: buffer.source(content.ok_or(Error::NotAllocated)?)?,
                    dtype: buffer.dtype(),
                    count: buffer.count(),
                })
            })
            .collect::<Result<_>>()?;
        let nothing_to_write = arguments[inputs..].iter().all(|out| out.region.is_none());
        if positions == 0 || nothing_to_write {
            return Ok(());
        }
        let driver = device.driver()?;
        device.explain(driver.launch(&self.0, &arguments, scalars, positions))
    }
}

fn supported(device: &Arc<Device>, driver: &dyn Driver, dtype: DType) -> Result<()> {
    if driver.calculates(dtype) {
        return Ok(());
    }
    let supported = DType::all().filter(|dtype| driver.calculates(*dtype));
    Err(Error::UnsupportedDType {
        dtype,
        device: device.id(),
        supported: supported.collect(),
    })
}
