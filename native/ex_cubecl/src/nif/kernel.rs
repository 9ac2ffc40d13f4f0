//! `ExCubecl.Kernel`.

use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::driver::Clock;
use ex_cubecl_core::launch::kernel::{Kernel, Launch, run_all, try_run};
use ex_cubecl_core::launch::matmul::matmul;
use ex_cubecl_core::launch::source::run_source;
use ex_cubecl_core::memory::allocation_tracker::Spec;
use ex_cubecl_core::program::source::Source;
use ex_cubecl_core::program::tree::Program;
use ex_cubecl_core::registry;
use ex_cubecl_core::threads::large_stack::on_large_stack;
use ex_cubecl_core::{Buffer, DeviceId, Error};
use ex_cubecl_runtime::parse_source;
use rustler::{Atom, Env, OwnedEnv, Reference, Resource, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifError, NifResult};
use crate::list;
use crate::resource::BufferRef;
use crate::term::{AllocOptions, Dims, ListOf, Wire, spec};

type Ref = ResourceArc<BufferRef>;

struct KernelRef(Kernel);

#[rustler::resource_impl]
impl Resource for KernelRef {}

impl UnwindSafe for KernelRef {}
impl RefUnwindSafe for KernelRef {}

/// Decodes, checks and hashes up to 20,000 nodes. A call of a cached kernel does not use it.
#[rustler::nif(schedule = "DirtyCpu")]
fn kernel_new<'a>(program: Term<'a>) -> NifResult<'a, ResourceArc<KernelRef>> {
    let own = OwnedEnv::new();
    let saved = own.save(program);
    // The decoder recurses for each level of the tree, and the stack size of a scheduler is set by a flag of the VM.
    let decode = move || {
        let decoded = own.run(|env| saved.load(env).decode::<Wire<Program>>());
        decoded.map_err(|_| Error::BadKernel {
            // A tree that Elixir has typed fails for no other reason.
            reason: "it is nested deeper than 200 levels: use variables".into(),
        })
    };
    let program = on_large_stack(decode)?.0;
    Ok(ResourceArc::new(KernelRef(Kernel::new(program)?)))
}

/// How many different programs are alive. It visits all of them.
#[rustler::nif]
fn kernel_count() -> u64 {
    Kernel::count() as u64
}

/// The scalars as the bits of the types that the kernel declares for them.
fn numbers<'a>(kernel: &Kernel, scalars: &[Term<'a>]) -> NifResult<'a, Vec<u64>> {
    let types = kernel.program().scalars.iter();
    let pairs = scalars.iter().zip(types).enumerate();
    pairs
        .map(|(index, (value, dtype))| {
            let (value, dtype) = (*value, *dtype);
            list::bits(value, dtype)
                .ok_or_else(|| NifError::invalid_value(index as u64, value, dtype))
        })
        .collect()
}

fn buffers(refs: &[Ref]) -> Vec<&Buffer> {
    refs.iter().map(|buffer| &buffer.0).collect()
}

/// Compiles a kernel for a device.
#[rustler::nif]
fn kernel_compile<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
) -> Pending<'a> {
    Call::new(env, tag).run_on(id.0, move |device| {
        kernel.0.compile(device)?;
        Ok(atoms::ok())
    })
}

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

/// The scalars of a map, the spec of its new buffer and the number of invocations.
struct Mapping {
    scalars: Vec<u64>,
    spec: Spec,
    invocations: u64,
}

fn mapping<'a>(
    env: Env<'a>,
    kernel: &Kernel,
    scalars: &[Term<'a>],
    dims: Dims,
    options: AllocOptions,
) -> NifResult<'a, Mapping> {
    let Some(dtype) = kernel.program().outputs.first() else {
        return Err(Error::NotAllocated.into());
    };
    let spec = spec(env, Wire(*dtype), dims, options);
    Ok(Mapping {
        scalars: numbers(kernel, scalars)?,
        invocations: spec.count().unwrap_or(u64::MAX),
        spec,
    })
}

fn handle_of<'a>(made: Vec<Buffer>) -> NifResult<'a, Ref> {
    let made = made.into_iter().next();
    let made = made.ok_or(Error::NotAllocated)?;
    Ok(ResourceArc::new(BufferRef::new(made)))
}

/// Runs a kernel into a new buffer.
#[rustler::nif]
#[allow(clippy::too_many_arguments)] // they describe a new buffer
fn kernel_map<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<Ref>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let it = mapping(env, &kernel.0, &scalars, dims, options)?;
    Call::new(env, tag).run_on(id.0, move |device| {
        let (inputs, outputs) = (buffers(&inputs), vec![it.spec]);
        handle_of(
            kernel
                .0
                .map(device, &inputs, &it.scalars, outputs, it.invocations)?,
        )
    })
}

/// Runs a kernel into a new buffer, on the caller's scheduler; `nil` if that would block.
#[rustler::nif]
fn kernel_map_now<'a>(
    env: Env<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<Ref>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    options: AllocOptions,
) -> NifResult<'a, Option<Ref>> {
    let kernel = &kernel.0;
    let it = mapping(env, kernel, &scalars, dims, options)?;
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let inputs = buffers(&inputs);
    let made = kernel.try_map(&device, &inputs, &it.scalars, vec![it.spec], it.invocations)?;
    made.map(handle_of).transpose()
}

/// A kernel, its inputs, scalars, outputs and number of invocations.
type Step<'a> = (
    ResourceArc<KernelRef>,
    ListOf<Ref>,
    ListOf<Term<'a>>,
    ListOf<Ref>,
    u64,
);

/// A step whose scalars are decoded.
struct Prepared {
    kernel: ResourceArc<KernelRef>,
    inputs: ListOf<Ref>,
    scalars: Vec<u64>,
    outputs: ListOf<Ref>,
    invocations: u64,
}

fn prepared<'a>(
    (kernel, inputs, scalars, outputs, invocations): Step<'a>,
) -> NifResult<'a, Prepared> {
    Ok(Prepared {
        scalars: numbers(&kernel.0, &scalars)?,
        kernel,
        inputs,
        outputs,
        invocations,
    })
}

impl Prepared {
    fn launch(&self) -> Launch<'_> {
        Launch {
            kernel: &self.kernel.0,
            buffers: [buffers(&self.inputs), buffers(&self.outputs)].concat(),
            scalars: &self.scalars,
            invocations: self.invocations,
        }
    }
}

/// Runs kernels into existing buffers, one after the other, in one submission.
#[rustler::nif(schedule = "DirtyCpu")]
fn kernel_run<'a>(env: Env<'a>, tag: Reference<'a>, steps: ListOf<Step<'a>>) -> Pending<'a> {
    let steps = steps.0.into_iter().map(prepared);
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let call = Call::new(env, tag);
    let first = steps.first().and_then(|step| step.outputs.first());
    match first.map(|output| output.0.device().clone()) {
        Some(device) => call.run(&device, move || Ok(run_steps(&steps)?)),
        // Nothing to run, or nothing to write: no device is used.
        None => Ok(run_steps(&steps)?),
    }
}

fn run_steps(steps: &[Prepared]) -> ex_cubecl_core::Result<Atom> {
    let launches: Vec<Launch> = steps.iter().map(Prepared::launch).collect();
    run_all(&launches)?;
    Ok(atoms::ok())
}

/// Runs one step on the caller's scheduler; `nil` if that would block.
#[rustler::nif]
fn kernel_run_now<'a>(step: Step<'a>) -> NifResult<'a, Option<Atom>> {
    let ran = try_run(&prepared(step)?.launch())?;
    Ok(ran.then(atoms::ok))
}

/// `nil` if the device's library has no kernel for these matrices, or compiling it would not pay.
#[rustler::nif]
fn kernel_matmul<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    left: Ref,
    right: Ref,
    lengths: (u64, u64, u64),
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, Wire(left.0.dtype()), dims, options);
    let (device, lengths) = (left.0.device().clone(), [lengths.0, lengths.1, lengths.2]);
    Call::new(env, tag).run(&device, move || {
        let made = matmul(&left.0, &right.0, spec, lengths)?;
        Ok(made.map(|made| ResourceArc::new(BufferRef::new(made))))
    })
}

struct SourceRef(Source);

#[rustler::resource_impl]
impl Resource for SourceRef {}

/// Checks a WGSL source, its entry point and, if given, its workgroup size.
#[rustler::nif(schedule = "DirtyCpu")]
fn source_new(
    text: String,
    entry: String,
    threads: Option<(u32, u32, u32)>,
) -> NifResult<'static, ResourceArc<SourceRef>> {
    let threads = threads.map(|(x, y, z)| [x, y, z]);
    let source = parse_source(text, entry, threads)?;
    Ok(ResourceArc::new(SourceRef(source)))
}

#[rustler::nif]
fn source_run<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    source: ResourceArc<SourceRef>,
    arguments: ListOf<Ref>,
    groups: (u32, u32, u32),
) -> Pending<'a> {
    let groups = [groups.0, groups.1, groups.2];
    let device = arguments.first().map(|buffer| buffer.0.device().clone());
    let run = move || run_source(&source.0, &buffers(&arguments), groups).map(|()| atoms::ok());
    match device {
        Some(device) => Call::new(env, tag).run(&device, move || Ok(run()?)),
        None => Ok(run()?),
    }
}
