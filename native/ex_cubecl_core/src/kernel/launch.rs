//! A kernel on buffers: what is checked before it runs, and which locks it holds.

use std::borrow::Cow;
use std::sync::Arc;

use super::programs;
use super::tree::{Atomic, Program, REPORT};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::{Argument, Run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ledger::Spec;
use crate::locks::Locks;
use crate::runtime::on_large_stack;

/// Positions are 32-bit integers inside of a kernel.
const MAX_POSITIONS: u64 = i32::MAX as u64;

/// A program that was found sound.
#[derive(Debug, Clone)]
pub struct Kernel {
    program: Arc<Program>,
    facts: Arc<Facts>,
}

/// What each launch asks of a program.
#[derive(Debug)]
struct Facts {
    dtypes: Vec<DType>,
    own: Vec<usize>,
    /// What is changed in one piece.
    changes: Vec<(Atomic, DType)>,
}

impl Kernel {
    pub fn new(program: Program) -> Result<Kernel> {
        // Going over a tree calls itself for each level, and nobody can tell how much stack the caller has.
        on_large_stack(|| Kernel::checked(program))
    }

    fn checked(program: Program) -> Result<Kernel> {
        program.check().map_err(bad)?;
        let program = programs::shared(program);
        Ok(Kernel {
            facts: Arc::new(Facts {
                dtypes: program.dtypes(),
                own: program.own(),
                changes: program.changes(),
            }),
            program,
        })
    }

    /// How many different programs are kept, by whoever may run them and by devices that have them compiled.
    pub fn count() -> usize {
        programs::count()
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Compiles it for a device, where that was not done yet.
    pub fn compile(&self, device: &Arc<Device>) -> Result<()> {
        let driver = device.driver()?;
        self.fits(device)?;
        match driver.is_compiled(&self.program) {
            true => Ok(()),
            false => device.explain(driver.compile(&self.program)),
        }
    }

    pub fn is_compiled(&self, device: &Device) -> bool {
        let driver = device.driver();
        driver.is_ok_and(|driver| driver.is_compiled(&self.program))
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
        let outputs = made(device, outputs)?;
        let launch = self.mapping(device, inputs, scalars, &outputs, positions)?;
        // Nobody else has them: what the launch leaves out, or fails before, is never seen.
        let whole = outputs.iter().all(|output| output.count() == positions);
        run_on(device, &[launch], whole)?;
        Ok(outputs)
    }

    /// As `map`, or `None` where that would have to wait for anything.
    pub fn map_now(
        &self,
        device: &Arc<Device>,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: Vec<Spec>,
        positions: u64,
    ) -> Result<Option<Vec<Buffer>>> {
        let outputs = made(device, outputs)?;
        let launch = self.mapping(device, inputs, scalars, &outputs, positions)?;
        let ready = outputs
            .iter()
            .all(|output| output.count() == positions && positions > 0 && output.allocate_now());
        let ran = ready && run_now_on(device, &launch)?;
        Ok(ran.then_some(outputs))
    }

    fn mapping<'a>(
        &'a self,
        device: &Arc<Device>,
        inputs: &[&'a Buffer],
        scalars: &'a [u64],
        outputs: &'a [Buffer],
        positions: u64,
    ) -> Result<Launch<'a>> {
        if !self.program.fills() {
            return Err(bad("a kernel that leaves out elements of what it makes"));
        }
        let buffers: Vec<&Buffer> = inputs.iter().copied().chain(outputs).collect();
        self.check(device, &buffers, scalars, positions)?;
        Ok(Launch {
            kernel: self,
            buffers,
            scalars,
            positions,
        })
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

    /// Whether the device has what the program uses.
    fn fits(&self, device: &Device) -> Result<()> {
        let driver = device.driver()?;
        for dtype in &self.facts.dtypes {
            supported(device, *dtype, |dtype| driver.calculates(dtype))?;
        }
        for (op, dtype) in &self.facts.changes {
            supported(device, *dtype, |dtype| driver.changes(*op, dtype))?;
        }
        let group = self.program.group.as_ref();
        group.map_or(Ok(()), |group| driver.check_group(group).map_err(bad))
    }

    fn check(
        &self,
        device: &Arc<Device>,
        buffers: &[&Buffer],
        scalars: &[u64],
        positions: u64,
    ) -> Result<()> {
        let program = &*self.program;
        let (wanted, numbers) = (program.buffers(), program.scalars.len());
        if buffers.len() != wanted || scalars.len() != numbers {
            return Err(bad("another number of arguments than the kernel has"));
        }
        self.fits(device)?;
        let own = &self.facts.own;
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
            true => Err(bad("more than 2,147,483,647 elements or positions")),
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
        self.kernel.program.inputs.len()
    }

    fn outputs(&self) -> &[&'a Buffer] {
        self.buffers.get(self.inputs()..).unwrap_or_default()
    }

    /// Its buffers, each with whether it is written.
    fn written(&self) -> impl Iterator<Item = (&'a Buffer, bool)> {
        let inputs = self.inputs();
        let buffers = self.buffers.iter().enumerate();
        buffers.map(move |(slot, buffer)| (*buffer, slot >= inputs))
    }

    /// What the driver has to know, of buffers that are locked.
    fn run<'b>(&'b self, locks: &'b Locks<'_>) -> Result<Run<'b>> {
        let arguments = self.buffers.iter().map(|buffer| {
            Ok(Argument {
                region: buffer.source(locks.content(buffer)?)?,
                dtype: buffer.dtype(),
                count: buffer.count(),
            })
        });
        Ok(Run {
            program: &self.kernel.program,
            arguments: arguments.collect::<Result<_>>()?,
            scalars: self.scalars,
            positions: self.positions,
        })
    }
}

fn made(device: &Arc<Device>, specs: Vec<Spec>) -> Result<Vec<Buffer>> {
    let specs = specs.into_iter();
    specs
        .map(|spec| Buffer::lazy(device.clone(), spec))
        .collect()
}

/// Runs one kernel into buffers that are there; `false` where it would have to wait for anything.
pub fn run_now(launch: &Launch<'_>) -> Result<bool> {
    let device = device_of(launch)?;
    let (buffers, scalars) = (&launch.buffers, launch.scalars);
    launch
        .kernel
        .check(&device, buffers, scalars, launch.positions)?;
    run_now_on(&device, launch)
}

fn run_now_on(device: &Arc<Device>, launch: &Launch<'_>) -> Result<bool> {
    if launch.positions == 0 || !launch.kernel.is_compiled(device) {
        return Ok(false);
    }
    let Some(locks) = Locks::take_now(launch.written()) else {
        return Ok(false);
    };
    // Where memory is missing, or the content, it is for the other way to take it or to say so.
    match launch.run(&locks) {
        Ok(run)
            if run
                .arguments
                .iter()
                .all(|argument| argument.region.is_some()) =>
        {
            device.explain(device.driver()?.launch_now(&run))
        }
        _ => Ok(false),
    }
}

fn device_of(launch: &Launch<'_>) -> Result<Arc<Device>> {
    match launch.outputs().first() {
        Some(output) => Ok(output.device().clone()),
        None => Err(bad("another number of arguments than the kernel has")),
    }
}

/// Runs kernels one after the other, into buffers that are there, as one call: others see all of it or
/// nothing. All are checked before the first one runs.
pub fn run_all(launches: &[Launch<'_>]) -> Result<()> {
    let Some(first) = launches.first() else {
        return Ok(());
    };
    let device = device_of(first)?;
    for launch in launches {
        let (buffers, scalars) = (&launch.buffers, launch.scalars);
        launch
            .kernel
            .check(&device, buffers, scalars, launch.positions)?;
    }
    run_on(&device, launches, false)
}

fn run_on(device: &Arc<Device>, launches: &[Launch<'_>], whole: bool) -> Result<()> {
    let mut locks = Locks::wait_for(launches.iter().flat_map(Launch::written));
    let busy = |launch: &&Launch<'_>| launch.positions > 0;
    for output in launches.iter().filter(busy).flat_map(Launch::outputs) {
        if let Some(content) = locks.content_mut(output) {
            output.modify_under(content, whole, |_| Ok(()))?;
        }
    }
    let mut runs = Vec::with_capacity(launches.len());
    for launch in launches {
        if launch.positions == 0 {
            locks.check(launch.written())?;
            continue;
        }
        let run = launch.run(&locks)?;
        let outputs = &run.arguments[launch.inputs()..];
        if outputs.iter().any(|out| out.region.is_some()) {
            runs.push(run);
        }
    }
    match runs.is_empty() {
        true => Ok(()),
        false => device.explain(device.driver()?.launch(&runs)),
    }
}

fn bad(reason: impl Into<Cow<'static, str>>) -> Error {
    let reason = reason.into();
    Error::BadKernel { reason }
}

fn supported(device: &Device, dtype: DType, can: impl Fn(DType) -> bool) -> Result<()> {
    if can(dtype) {
        return Ok(());
    }
    Err(Error::UnsupportedDType {
        dtype,
        device: device.id(),
        supported: DType::all().filter(|dtype| can(*dtype)).collect(),
    })
}
