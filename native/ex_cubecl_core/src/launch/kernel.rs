//! Kernel launches on buffers: the checks before a launch, and the locks that it holds.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::{Argument, GroupLimits, Run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::launch::variant::Variant;
use crate::locks::Locks;
use crate::memory::allocation_tracker::Spec;
use crate::program::interned;
use crate::program::tree::{Atomic, Group, Program, REPORT};
use crate::storage::Content;
use crate::threads::large_stack::on_large_stack;

/// Indices are signed 32-bit integers inside a kernel.
const MAX_INVOCATIONS: u64 = i32::MAX as u64;

/// A program that passed its checks.
#[derive(Debug, Clone)]
pub struct Kernel {
    program: Arc<Program>,
    facts: Arc<Facts>,
}

/// Properties of a program that each launch checks.
#[derive(Debug)]
struct Facts {
    dtypes: Vec<DType>,
    element_at_self: Vec<usize>,
    /// The atomic operations, with the types of their elements.
    atomics: Vec<(Atomic, DType)>,
    /// The name of an operation on a plane, if there is one.
    plane: Option<&'static str>,
    variant: Option<Variant>,
}

impl Kernel {
    pub fn new(program: Program) -> Result<Kernel> {
        // Checking a tree recurses once for each level, and the stack size of the calling thread is unknown.
        on_large_stack(|| Kernel::checked(program))
    }

    fn checked(program: Program) -> Result<Kernel> {
        program.check().map_err(Error::bad_kernel)?;
        let program = interned::shared(program);
        Ok(Kernel {
            facts: Arc::new(Facts {
                dtypes: program.dtypes(),
                element_at_self: program.element_at_self(),
                atomics: program.atomic_operations(),
                plane: program.plane_operation(),
                variant: Variant::of(&program),
            }),
            program,
        })
    }

    /// How many different programs are alive: those that a `Kernel` refers to, and those that a device
    /// has compiled.
    pub fn count() -> usize {
        interned::count()
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Compiles the kernel for a device, if that was not done yet.
    pub fn compile(&self, device: &Arc<Device>) -> Result<()> {
        let driver = device.driver()?;
        self.fits(device)?;
        if driver.is_compiled(&self.program) {
            Ok(())
        } else {
            device.explain(driver.compile(&self.program))
        }
    }

    pub fn is_compiled(&self, device: &Device) -> bool {
        let driver = device.driver();
        driver.is_ok_and(|driver| driver.is_compiled(&self.program))
    }

    /// Runs the kernel with this many invocations, into new buffers: each of their elements is written by
    /// the invocation with the same index.
    pub fn map(
        &self,
        device: &Arc<Device>,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: Vec<Spec>,
        invocations: u64,
    ) -> Result<Vec<Buffer>> {
        let outputs = made(device, outputs)?;
        let launch = self.mapping(device, inputs, scalars, &outputs, invocations)?;
        run_on(device, &[launch])?;
        Ok(outputs)
    }

    /// As `map`, without blocking: returns `None` if it would block.
    pub fn try_map(
        &self,
        device: &Arc<Device>,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: Vec<Spec>,
        invocations: u64,
    ) -> Result<Option<Vec<Buffer>>> {
        let outputs = made(device, outputs)?;
        let launch = self.mapping(device, inputs, scalars, &outputs, invocations)?;
        let ran = try_run_on(device, &launch)?;
        Ok(ran.then_some(outputs))
    }

    fn mapping<'a>(
        &'a self,
        device: &Arc<Device>,
        inputs: &[&'a Buffer],
        scalars: &'a [u64],
        outputs: &'a [Buffer],
        invocations: u64,
    ) -> Result<Launch<'a>> {
        if !self.program.fills() {
            return Err(Error::bad_kernel(
                "a kernel that leaves out elements of what it makes",
            ));
        }
        let buffers: Vec<&Buffer> = inputs.iter().copied().chain(outputs).collect();
        self.check(device, &buffers, scalars, invocations)?;
        Ok(Launch {
            kernel: self,
            buffers,
            scalars,
            invocations,
            replaces: false,
        })
    }

    /// Runs the kernel with this many invocations, into existing buffers.
    pub fn run(
        &self,
        inputs: &[&Buffer],
        scalars: &[u64],
        outputs: &[&Buffer],
        invocations: u64,
    ) -> Result<()> {
        run_all(&[Launch {
            kernel: self,
            buffers: inputs.iter().chain(outputs).copied().collect(),
            scalars,
            invocations,
            replaces: false,
        }])
    }

    /// Checks that the device supports the number of buffers, the types, atomic operations, operations on planes and workgroup of the program.
    fn fits(&self, device: &Device) -> Result<()> {
        let driver = device.driver()?;
        let (buffers, most) = (self.program.buffers(), device.info.max_buffers);
        if buffers > most as usize {
            return Err(Error::bad_kernel(format!(
                "it has {buffers} buffers: {} binds at most {most} to a kernel",
                device.id()
            )));
        }
        if let Some(operation) = self.facts.plane
            && !driver.supports_planes()
        {
            let device = device.id();
            return Err(Error::Unsupported { operation, device });
        }
        for dtype in &self.facts.dtypes {
            supported(device, *dtype, |dtype| driver.supports_compute(dtype))?;
        }
        for (op, dtype) in &self.facts.atomics {
            supported(device, *dtype, |dtype| driver.supports_atomic(*op, dtype))?;
        }
        let group = self.program.group.as_ref();
        group.map_or(Ok(()), |group| check_group(group, driver.group_limits()))
    }

    fn check(
        &self,
        device: &Arc<Device>,
        buffers: &[&Buffer],
        scalars: &[u64],
        invocations: u64,
    ) -> Result<()> {
        let program = &*self.program;
        let (wanted, numbers) = (program.buffers(), program.scalars.len());
        if buffers.len() != wanted || scalars.len() != numbers {
            return Err(Error::bad_kernel(
                "another number of arguments than the kernel has",
            ));
        }
        self.fits(device)?;
        let element_at_self = &self.facts.element_at_self;
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
            if element_at_self.contains(&slot) && buffer.count() < invocations {
                return Err(Error::ShapeMismatch {
                    expected: invocations,
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
        if most.unwrap_or(0).max(invocations) > MAX_INVOCATIONS {
            Err(Error::bad_kernel(
                "more than 2,147,483,647 elements or invocations",
            ))
        } else {
            Ok(())
        }
    }
}

fn check_group(group: &Group, limits: GroupLimits) -> Result<()> {
    if group.threads > limits.threads {
        return Err(Error::bad_kernel(format!(
            "a group of {} threads: at most {} run together on this device",
            group.threads, limits.threads
        )));
    }
    let (bytes, room) = (group.shared_bytes(), limits.shared_bytes);
    if bytes > room {
        return Err(Error::bad_kernel(format!(
            "{bytes} bytes of shared memory: a group has {room} on this device"
        )));
    }
    Ok(())
}

/// One launch of a kernel. `buffers` are its inputs, followed by its outputs.
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub buffers: Vec<&'a Buffer>,
    pub scalars: &'a [u64],
    pub invocations: u64,
    /// The caller knows that the launch writes every element of its outputs: their new memory is not zeroed.
    pub replaces: bool,
}

impl<'a> Launch<'a> {
    fn inputs(&self) -> usize {
        self.kernel.program.inputs.len()
    }

    fn outputs(&self) -> &[&'a Buffer] {
        self.buffers.get(self.inputs()..).unwrap_or_default()
    }

    /// Whether the launch writes every byte of the storage of an output.
    fn replaces(&self, output: &Buffer) -> bool {
        let fills = || self.kernel.program.fills() && output.count() == self.invocations;
        output.covers_all() && (self.replaces || fills())
    }

    /// The buffers of the launch, each with whether the launch writes it.
    fn written(&self) -> impl Iterator<Item = (&'a Buffer, bool)> {
        let inputs = self.inputs();
        let buffers = self.buffers.iter().enumerate();
        buffers.map(move |(slot, buffer)| (*buffer, slot >= inputs))
    }

    /// The launch as the driver takes it. Its buffers are locked.
    fn run<'b>(&'b self, locks: &'b Locks<'_>) -> Result<Run<'b>> {
        let arguments = self.buffers.iter().map(|buffer| {
            Ok(Argument {
                region: buffer.source(locks.content(buffer)?)?,
                dtype: buffer.dtype(),
                count: buffer.count(),
            })
        });
        let arguments: Vec<_> = arguments.collect::<Result<_>>()?;
        let variant = self.kernel.facts.variant.as_ref();
        let variant = variant.and_then(|variant| variant.choose(&arguments, self.invocations));
        let (program, invocations) = variant.unwrap_or((&self.kernel.program, self.invocations));
        Ok(Run {
            program,
            arguments,
            scalars: self.scalars,
            invocations,
        })
    }
}

fn made(device: &Arc<Device>, specs: Vec<Spec>) -> Result<Vec<Buffer>> {
    let specs = specs.into_iter();
    specs
        .map(|spec| Buffer::lazy(device.clone(), spec))
        .collect()
}

/// Runs one kernel into existing buffers, without blocking: returns `false` if it would block.
pub fn try_run(launch: &Launch<'_>) -> Result<bool> {
    let device = device_of(launch)?;
    let (buffers, scalars) = (&launch.buffers, launch.scalars);
    launch
        .kernel
        .check(&device, buffers, scalars, launch.invocations)?;
    try_run_on(&device, launch)
}

fn try_run_on(device: &Arc<Device>, launch: &Launch<'_>) -> Result<bool> {
    if launch.invocations == 0 || !launch.kernel.is_compiled(device) {
        return Ok(false);
    }
    let Some(mut locks) = Locks::try_lock(launch.written()) else {
        return Ok(false);
    };
    let fresh = unwritten(&locks, std::slice::from_ref(launch));
    let ready = fresh.iter().all(|output| {
        let content = locks.content_mut(output);
        content.is_some_and(|content| output.storage().try_prepare(content))
    });
    // If memory or content is missing, the blocking call allocates it or returns the error.
    let launched = match launch.run(&locks) {
        Ok(run) if ready && run.arguments.iter().all(|it| it.region.is_some()) => {
            device.explain(device.driver()?.try_launch(&run))
        }
        _ => Ok(false),
    };
    if launched != Ok(true) {
        withdraw(&mut locks, &fresh);
    }
    launched
}

/// The outputs without content that the launches replace, each byte.
fn unwritten<'a>(locks: &Locks<'_>, launches: &[Launch<'a>]) -> Vec<&'a Buffer> {
    let is_unwritten = |output: &Buffer| {
        let content = locks.content(output);
        content.is_ok_and(|content| matches!(content, Content::Unwritten(_)))
    };
    let busy = launches.iter().filter(|launch| launch.invocations > 0);
    let outputs = busy.flat_map(|launch| {
        let outputs = launch.outputs().iter().copied();
        outputs.filter(|output| launch.replaces(output))
    });
    outputs.filter(|output| is_unwritten(output)).collect()
}

/// What no launch has written must not be read.
fn withdraw(locks: &mut Locks<'_>, fresh: &[&Buffer]) {
    for output in fresh {
        if let Some(content) = locks.content_mut(output) {
            output.storage().withdraw(content);
        }
    }
}

fn device_of(launch: &Launch<'_>) -> Result<Arc<Device>> {
    match launch.outputs().first() {
        Some(output) => Ok(output.device().clone()),
        None => Err(Error::bad_kernel(
            "another number of arguments than the kernel has",
        )),
    }
}

/// Runs kernels one after the other, into existing buffers, as one call: other calls see the effect of
/// all of them or of none. All are checked before the first one runs.
pub fn run_all(launches: &[Launch<'_>]) -> Result<()> {
    let Some(first) = launches.first() else {
        return Ok(());
    };
    let device = device_of(first)?;
    for launch in launches {
        let (buffers, scalars) = (&launch.buffers, launch.scalars);
        launch
            .kernel
            .check(&device, buffers, scalars, launch.invocations)?;
    }
    run_on(&device, launches)
}

fn run_on(device: &Arc<Device>, launches: &[Launch<'_>]) -> Result<()> {
    let mut locks = Locks::lock(launches.iter().flat_map(Launch::written));
    let fresh = unwritten(&locks, launches);
    let launched = run_under(device, launches, &mut locks);
    if launched.is_err() {
        withdraw(&mut locks, &fresh);
    }
    launched
}

fn run_under(device: &Arc<Device>, launches: &[Launch<'_>], locks: &mut Locks<'_>) -> Result<()> {
    for launch in launches.iter().filter(|launch| launch.invocations > 0) {
        for output in launch.outputs() {
            if let Some(content) = locks.content_mut(output) {
                output.modify_under(content, launch.replaces(output), |_| Ok(()))?;
            }
        }
    }
    let mut runs = Vec::with_capacity(launches.len());
    for launch in launches {
        if launch.invocations == 0 {
            locks.check(launch.written())?;
            continue;
        }
        let run = launch.run(locks)?;
        let outputs = &run.arguments[launch.inputs()..];
        if outputs.iter().any(|out| out.region.is_some()) {
            runs.push(run);
        }
    }
    if runs.is_empty() {
        Ok(())
    } else {
        device.explain(device.driver()?.launch(&runs))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::program::tree::{Expr, INDEX, Plane, Stmt};
    use crate::testing::host_device;

    #[test]
    fn a_device_without_planes_names_the_operation() {
        let sum = Expr::Plane(Plane::Sum, Box::new(Expr::LocalId));
        let program = Program {
            inputs: vec![],
            outputs: vec![DType::S32],
            scalars: vec![],
            locals: vec![INDEX],
            body: vec![Stmt::Set(0, sum)],
            report: None,
            group: Some(Group {
                threads: 8,
                shared: vec![],
            }),
        };
        let device = host_device();
        let unsupported = Error::Unsupported {
            operation: "plane_sum",
            device: device.id(),
        };
        let kernel = Kernel::new(program).unwrap();
        assert_eq!(kernel.compile(&device), Err(unsupported));
    }
}
