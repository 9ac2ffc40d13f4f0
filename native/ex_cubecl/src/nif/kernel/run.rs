//! Launches.

use ex_cubecl_core::launch::kernel::{Kernel, Launch, run_all, try_run};
use ex_cubecl_core::launch::matmul::{Lengths, Operand, matmul};
use ex_cubecl_core::registry;
use ex_cubecl_core::{Buffer, DType, DeviceId, Error, Spec};
use rustler::{Atom, Env, Reference, ResourceArc, Term};

use super::KernelRef;
use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifError, NifResult};
use crate::number;
use crate::resource::{BufferArg, buffers, handle};
use crate::term::{AllocOptions, Dims, ListOf, Wire, spec};

/// The scalars as the bits of the types that the kernel declares for them.
fn scalar_bits<'a>(kernel: &Kernel, scalars: &[Term<'a>]) -> NifResult<'a, Vec<u64>> {
    let types = kernel.program().scalars.iter();
    let bits = |(index, (value, dtype)): (usize, (&Term<'a>, &DType))| {
        let bits = number::bits(*value, *dtype);
        bits.ok_or_else(|| NifError::invalid_value(index as u64, *value, *dtype))
    };
    scalars.iter().zip(types).enumerate().map(bits).collect()
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
        scalars: scalar_bits(kernel, scalars)?,
        invocations: spec.count().unwrap_or(u64::MAX),
        spec,
    })
}

fn only_output<'a>(outputs: Vec<Buffer>) -> NifResult<'a, BufferArg> {
    let output = outputs.into_iter().next();
    Ok(handle(output.ok_or(Error::NotAllocated)?))
}

/// Runs a kernel into a new buffer.
#[rustler::nif]
#[allow(clippy::too_many_arguments)] // they describe a new buffer
fn kernel_map<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<BufferArg>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let it = mapping(env, &kernel.0, &scalars, dims, options)?;
    Call::new(env, tag).run_on(id.0, move |device| {
        let (inputs, specs) = (buffers(&inputs), vec![it.spec]);
        let outputs = kernel
            .0
            .map(device, &inputs, &it.scalars, specs, it.invocations);
        only_output(outputs?)
    })
}

#[rustler::nif]
fn kernel_try_map<'a>(
    env: Env<'a>,
    kernel: ResourceArc<KernelRef>,
    id: Wire<DeviceId>,
    inputs: ListOf<BufferArg>,
    scalars: ListOf<Term<'a>>,
    dims: Dims,
    options: AllocOptions,
) -> NifResult<'a, Option<BufferArg>> {
    let kernel = &kernel.0;
    let it = mapping(env, kernel, &scalars, dims, options)?;
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let (inputs, specs) = (buffers(&inputs), vec![it.spec]);
    let outputs = kernel.try_map(&device, &inputs, &it.scalars, specs, it.invocations)?;
    outputs.map(only_output).transpose()
}

/// A kernel, its inputs, scalars, outputs and number of invocations, and whether it writes every element of the outputs.
type StepTerms<'a> = (
    ResourceArc<KernelRef>,
    ListOf<BufferArg>,
    ListOf<Term<'a>>,
    ListOf<BufferArg>,
    u64,
    bool,
);

/// A launch into existing buffers.
struct Step {
    kernel: ResourceArc<KernelRef>,
    inputs: ListOf<BufferArg>,
    scalars: Vec<u64>,
    outputs: ListOf<BufferArg>,
    invocations: u64,
    replaces: bool,
}

fn step<'a>(terms: StepTerms<'a>) -> NifResult<'a, Step> {
    let (kernel, inputs, scalars, outputs, invocations, replaces) = terms;
    Ok(Step {
        scalars: scalar_bits(&kernel.0, &scalars)?,
        kernel,
        inputs,
        outputs,
        invocations,
        replaces,
    })
}

impl Step {
    fn launch(&self) -> Launch<'_> {
        Launch {
            kernel: &self.kernel.0,
            buffers: [buffers(&self.inputs), buffers(&self.outputs)].concat(),
            scalars: &self.scalars,
            invocations: self.invocations,
            replaces: self.replaces,
        }
    }
}

/// Runs kernels into existing buffers, one after the other, in one submission.
#[rustler::nif(schedule = "DirtyCpu")]
fn kernel_run_all<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    steps: ListOf<StepTerms<'a>>,
) -> Pending<'a> {
    let steps = steps.0.into_iter().map(step);
    run(env, tag, steps.collect::<Result<Vec<_>, _>>()?)
}

/// Runs one step.
#[rustler::nif]
fn kernel_run<'a>(env: Env<'a>, tag: Reference<'a>, terms: StepTerms<'a>) -> Pending<'a> {
    run(env, tag, vec![step(terms)?])
}

#[rustler::nif]
fn kernel_try_run<'a>(terms: StepTerms<'a>) -> NifResult<'a, Option<Atom>> {
    let launched = try_run(&step(terms)?.launch())?;
    Ok(launched.then(atoms::ok))
}

fn run<'a>(env: Env<'a>, tag: Reference<'a>, steps: Vec<Step>) -> Pending<'a> {
    let first = steps.first().and_then(|step| step.outputs.first());
    match first.map(|output| output.device().clone()) {
        Some(device) => Call::new(env, tag).run(&device, move || Ok(run_steps(&steps)?)),
        // Nothing to run, or nothing to write: no device is used.
        None => Ok(run_steps(&steps)?),
    }
}

fn run_steps(steps: &[Step]) -> ex_cubecl_core::Result<Atom> {
    let launches: Vec<Launch> = steps.iter().map(Step::launch).collect();
    run_all(&launches)?;
    Ok(atoms::ok())
}

/// The lengths of the axes of the stacks, and rows, inner elements and columns.
type ProductLengths = (Vec<u64>, (u64, u64, u64));

/// The offset and the strides of an operand of a product.
type ProductView = (u64, Vec<u64>);

/// `nil` if the device's library has no kernel for these operands.
#[rustler::nif]
fn kernel_matmul<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    left: (BufferArg, ProductView),
    right: (BufferArg, ProductView),
    lengths: ProductLengths,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, Wire(left.0.dtype()), dims, options);
    let device = left.0.device().clone();
    Call::new(env, tag).run(&device, move || {
        let (batch, (rows, inner, columns)) = &lengths;
        let lengths = Lengths {
            batch,
            rows: *rows,
            inner: *inner,
            columns: *columns,
        };
        let product = matmul(&operand(&left), &operand(&right), spec, &lengths)?;
        Ok(product.map(handle))
    })
}

fn operand((buffer, (offset, strides)): &(BufferArg, ProductView)) -> Operand<'_> {
    Operand {
        buffer,
        offset: *offset,
        strides,
    }
}
