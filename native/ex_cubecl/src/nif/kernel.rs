//! `ExCubecl.Kernel`.

use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::kernel::launch::{self, Kernel, Launch};
use ex_cubecl_core::kernel::tree::Program;
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

#[rustler::nif]
fn kernel_new(program: Wire<Program>) -> Answer<'static, ResourceArc<KernelRef>> {
    Ok(ResourceArc::new(KernelRef(Kernel::new(program.0)?)))
}

/// How many different kernels were made.
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
    let scalars = numbers(kernel, &scalars)?;
    let Some(dtype) = kernel.program().outputs.first() else {
        return Err(ex_cubecl_core::Error::NotAllocated.into());
    };
    let spec = spec(env, Wire(*dtype), dims, note);
    let positions = spec.count().unwrap_or(u64::MAX);
    let device = device::open(id.0)?;
    let made = kernel.map(&device, &buffers(&inputs), &scalars, vec![spec], positions)?;
    let made = made.into_iter().next();
    let made = made.ok_or(ex_cubecl_core::Error::NotAllocated)?;
    Ok(ResourceArc::new(BufferRef::new(made)))
}

/// A kernel, its inputs, numbers, outputs and how often it runs.
type Step<'a> = (
    ResourceArc<KernelRef>,
    ListOf<Ref>,
    ListOf<Term<'a>>,
    ListOf<Ref>,
    u64,
);

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
        .map(
            |((kernel, inputs, _, outputs, positions), scalars)| Launch {
                kernel: &kernel.0,
                buffers: [buffers(inputs), buffers(outputs)].concat(),
                scalars,
                positions: *positions,
            },
        )
        .collect();
    launch::run_all(&launches)?;
    Ok(atoms::ok())
}
