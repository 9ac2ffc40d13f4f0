//! `ExCubecl.Kernel`.

use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::driver::Clock;
use ex_cubecl_core::kernel::launch::{self, Kernel, Launch};
use ex_cubecl_core::kernel::matmul::matmul;
use ex_cubecl_core::kernel::source::Source;
use ex_cubecl_core::kernel::tree::Program;
use ex_cubecl_core::ledger::Spec;
use ex_cubecl_core::{Buffer, DeviceId, device};
use rustler::{Atom, Env, Resource, ResourceArc, Term};

use crate::atoms;
use crate::error::{Answer, Fault};
use crate::list;
use crate::resource::BufferRef;
use crate::term::{Dims, ListOf, Note, Wire, spec};

type Ref = ResourceArc<BufferRef>;

struct KernelRef(Kernel);

#[rustler::resource_impl]
impl Resource for KernelRef {}

impl UnwindSafe for KernelRef {}
impl RefUnwindSafe for KernelRef {}

/// Decodes, checks and hashes up to 20,000 nodes; a call of a kernel that is known does not come here.
#[rustler::nif(schedule = "DirtyCpu")]
fn kernel_new(program: Wire<Program>) -> Answer<'static, ResourceArc<KernelRef>> {
    Ok(ResourceArc::new(KernelRef(Kernel::new(program.0)?)))
}

/// How many different kernels are kept. Goes over all of them.
#[rustler::nif]
fn kernel_count() -> u64 {
    Kernel::count() as u64
}

/// Numbers as the bits of the types that the kernel has them in.
fn numbers<'a>(kernel: &Kernel, scalars: &[Term<'a>]) -> Answer<'a, Vec<u64>> {
    let types = kernel.program().scalars.iter();
    let pairs = scalars.iter().zip(types).enumerate();
    pairs
        .map(|(index, (value, dtype))| {
            let (value, dtype) = (*value, *dtype);
            list::bits(value, dtype).ok_or(Fault::Value {
                index: index as u64,
                value,
                dtype,
            })
        })
        .collect()
}

fn buffers(refs: &[Ref]) -> Vec<&Buffer> {
    refs.iter().map(|buffer| &buffer.0).collect()
}

/// Compiles it for a device.
#[rustler::nif(schedule = "DirtyIo")]
fn kernel_compile(kernel: ResourceArc<KernelRef>, id: Wire<DeviceId>) -> Answer<'static, Atom> {
    kernel.0.compile(&device::open(id.0)?)?;
    Ok(atoms::ok())
}

#[rustler::nif(schedule = "DirtyIo")]
fn kernel_profile_start(id: Wire<DeviceId>) -> Answer<'static, u64> {
    Ok(device::open(id.0)?.start_timing()?)
}

/// Nanoseconds, and whose.
#[rustler::nif(schedule = "DirtyIo")]
fn kernel_profile_stop(id: Wire<DeviceId>, token: u64) -> Answer<'static, (u64, Atom)> {
    let time = device::open(id.0)?.stop_timing(token)?;
    let clock = match time.clock {
        Clock::Device => atoms::device(),
        Clock::Host => atoms::host(),
    };
    let nanoseconds = u64::try_from(time.passed.as_nanos());
    Ok((nanoseconds.unwrap_or(u64::MAX), clock))
}

/// What a new buffer is made of.
struct Mapping<'a> {
    scalars: Vec<u64>,
    spec: Spec,
    positions: u64,
    inputs: &'a [Ref],
}

fn mapping<'a, 'b>(
    env: Env<'a>,
    kernel: &Kernel,
    inputs: &'b [Ref],
    scalars: &[Term<'a>],
    dims: Dims,
    note: Note,
) -> Answer<'a, Mapping<'b>> {
    let Some(dtype) = kernel.program().outputs.first() else {
        return Err(ex_cubecl_core::Error::NotAllocated.into());
    };
    let spec = spec(env, Wire(*dtype), dims, note);
    Ok(Mapping {
        scalars: numbers(kernel, scalars)?,
        positions: spec.count().unwrap_or(u64::MAX),
        spec,
        inputs,
    })
}

fn handle_of<'a>(made: Vec<Buffer>) -> Answer<'a, Ref> {
    let made = made.into_iter().next();
    let made = made.ok_or(ex_cubecl_core::Error::NotAllocated)?;
    Ok(ResourceArc::new(BufferRef::new(made)))
}

/// Into a new buffer.
#[rustler::nif(schedule = "DirtyIo")]
fn kernel_map<'a>(
    env: Env<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<Ref>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    note: Note,
) -> Answer<'a, Ref> {
    let kernel = &kernel.0;
    let it = mapping(env, kernel, &inputs, &scalars, dims, note)?;
    let device = device::open(id.0)?;
    let inputs = buffers(it.inputs);
    handle_of(kernel.map(&device, &inputs, &it.scalars, vec![it.spec], it.positions)?)
}

/// Into a new buffer, on the caller's scheduler; `nil` where that would have to wait.
#[rustler::nif]
fn kernel_map_now<'a>(
    env: Env<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<Ref>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    note: Note,
) -> Answer<'a, Option<Ref>> {
    let kernel = &kernel.0;
    let it = mapping(env, kernel, &inputs, &scalars, dims, note)?;
    let Some(device) = device::find_open(id.0) else {
        return Ok(None);
    };
    let inputs = buffers(it.inputs);
    let made = kernel.map_now(&device, &inputs, &it.scalars, vec![it.spec], it.positions)?;
    made.map(handle_of).transpose()
}

/// A kernel, its inputs, numbers, outputs and how often it runs.
type Step<'a> = (
    ResourceArc<KernelRef>,
    ListOf<Ref>,
    ListOf<Term<'a>>,
    ListOf<Ref>,
    u64,
);

fn launch<'a>(
    (kernel, inputs, _, outputs, positions): &'a Step<'_>,
    scalars: &'a [u64],
) -> Launch<'a> {
    Launch {
        kernel: &kernel.0,
        buffers: [buffers(inputs), buffers(outputs)].concat(),
        scalars,
        positions: *positions,
    }
}

/// Into buffers that are there, one after the other, in one submission.
#[rustler::nif(schedule = "DirtyIo")]
fn kernel_run<'a>(steps: ListOf<Step<'a>>) -> Answer<'a, Atom> {
    let scalars = steps
        .iter()
        .map(|(kernel, _, scalars, _, _)| numbers(&kernel.0, scalars))
        .collect::<Result<Vec<_>, _>>()?;
    let launches: Vec<Launch> = steps
        .iter()
        .zip(&scalars)
        .map(|(step, scalars)| launch(step, scalars))
        .collect();
    launch::run_all(&launches)?;
    Ok(atoms::ok())
}

/// One step, on the caller's scheduler; `nil` where that would have to wait.
#[rustler::nif]
fn kernel_run_now<'a>(step: Step<'a>) -> Answer<'a, Option<Atom>> {
    let scalars = numbers(&step.0.0, &step.2)?;
    let ran = launch::run_now(&launch(&step, &scalars))?;
    Ok(ran.then(atoms::ok))
}

/// `nil` where the device has no way of its own for these.
#[rustler::nif(schedule = "DirtyIo")]
fn kernel_matmul<'a>(
    env: Env<'a>,
    left: Ref,
    right: Ref,
    lengths: (u64, u64, u64),
    dims: Dims,
    note: Note,
) -> Answer<'a, Option<Ref>> {
    let spec = spec(env, Wire(left.0.dtype()), dims, note);
    let lengths = [lengths.0, lengths.1, lengths.2];
    let made = matmul(&left.0, &right.0, spec, lengths)?;
    Ok(made.map(|made| ResourceArc::new(BufferRef::new(made))))
}

struct SourceRef(Source);

#[rustler::resource_impl]
impl Resource for SourceRef {}

/// A source in WGSL, its entry point and, if it is said, the threads of its groups.
#[rustler::nif(schedule = "DirtyCpu")]
fn source_new(
    text: String,
    entry: String,
    threads: Option<(u32, u32, u32)>,
) -> Answer<'static, ResourceArc<SourceRef>> {
    let threads = threads.map(|(x, y, z)| [x, y, z]);
    Ok(ResourceArc::new(SourceRef(Source::new(
        text, entry, threads,
    )?)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn source_run(
    source: ResourceArc<SourceRef>,
    arguments: ListOf<Ref>,
    groups: (u32, u32, u32),
) -> Answer<'static, Atom> {
    let groups = [groups.0, groups.1, groups.2];
    source.0.run(&buffers(&arguments), groups)?;
    Ok(atoms::ok())
}
