//! A kernel on buffers: what is checked before it runs, and which locks it holds.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLockReadGuard, RwLockWriteGuard};

use super::tree::{Program, REPORT};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::{Argument, Driver, Run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ledger::Spec;
use crate::storage::{Content, Storage};

/// Positions are 32-bit integers inside of a kernel.
const MAX_POSITIONS: u64 = i32::MAX as u64;

/// CubeCL keeps whatever it compiled, for good: a program that makes new kernels without end has to
/// stop somewhere.
const MAX_PROGRAMS: usize = 16_384;

/// Programs that were made once. Equal ones are one, so that CubeCL compares pointers.
static PROGRAMS: LazyLock<Mutex<HashSet<Arc<Program>>>> = LazyLock::new(Mutex::default);

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
        if let Err(reason) = program.check() {
            return Err(Error::BadKernel { reason });
        }
        let mut programs = PROGRAMS.lock();
        if let Some(known) = programs.get(&program) {
            return Ok(Kernel(known.clone()));
        }
        if programs.len() >= MAX_PROGRAMS {
            return Err(Error::BadKernel {
                reason: "there are 16,384 different kernels already: pass what varies as a number, not as code",
            });
        }
        let program = Arc::new(program);
        programs.insert(program.clone());
        Ok(Kernel(program))
    }

    /// How many different programs there are.
    pub fn count() -> usize {
        PROGRAMS.lock().len()
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
        let launch = Launch {
            kernel: self,
            buffers: all,
            scalars,
            positions,
        };
        run_on(device, &[launch], whole)?;
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
        run_all(&[Launch {
            kernel: self,
            buffers: inputs.iter().chain(outputs).copied().collect(),
            scalars,
            positions,
        }])
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
            if program.report == Some(slot) && buffer.count() < REPORT {
                return Err(Error::ShapeMismatch {
                    expected: REPORT,
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
}

/// One run of a kernel: its inputs and, behind them, its outputs.
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub buffers: Vec<&'a Buffer>,
    pub scalars: &'a [u64],
    pub positions: u64,
}

impl<'a> Launch<'a> {
    fn inputs(&self) -> usize {
        self.kernel.0.inputs.len()
    }

    fn outputs(&self) -> &[&'a Buffer] {
        self.buffers.get(self.inputs()..).unwrap_or_default()
    }
}

/// Runs kernels one after the other, into buffers that are there, as one call: others see all of it or
/// nothing. All are checked before the first one runs.
pub fn run_all(launches: &[Launch<'_>]) -> Result<()> {
    let Some(first) = launches.first() else {
        return Ok(());
    };
    let Some(output) = first.outputs().first() else {
        return Err(Error::BadKernel {
            reason: "another number of arguments than the kernel has",
        });
    };
    let device = output.device().clone();
    for launch in launches {
        let (buffers, scalars) = (&launch.buffers, launch.scalars);
        launch
            .kernel
            .check(&device, buffers, scalars, launch.positions)?;
    }
    run_on(&device, launches, false)
}

/// All storages are locked in the order of their ids, each once, so that two calls cannot wait for each
/// other.
fn run_on(device: &Arc<Device>, launches: &[Launch<'_>], whole: bool) -> Result<()> {
    let mut storages: Vec<(&Storage, bool)> = Vec::new();
    for launch in launches {
        for (slot, buffer) in launch.buffers.iter().enumerate() {
            let storage = &**buffer.storage();
            match storages.iter_mut().find(|known| known.0.id == storage.id) {
                Some(known) => known.1 |= slot >= launch.inputs(),
                None => storages.push((storage, slot >= launch.inputs())),
            }
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
    for output in launches.iter().flat_map(Launch::outputs) {
        let id = output.storage().id;
        let guard = guards.iter_mut().find(|known| known.0 == id);
        if let Some((_, Guard::Write(content))) = guard {
            output.modify_under(content, whole, |_| Ok(()))?;
        }
    }
    let mut runs = Vec::with_capacity(launches.len());
    for launch in launches {
        let arguments: Vec<Argument<'_>> = launch
            .buffers
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
        let outputs = &arguments[launch.inputs()..];
        if launch.positions > 0 && outputs.iter().any(|out| out.region.is_some()) {
            runs.push(Run {
                program: &launch.kernel.0,
                arguments,
                scalars: launch.scalars,
                positions: launch.positions,
            });
        }
    }
    match runs.is_empty() {
        true => Ok(()),
        false => device.explain(device.driver()?.launch(&runs)),
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
