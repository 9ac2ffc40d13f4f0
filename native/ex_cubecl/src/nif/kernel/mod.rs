//! `ExCubecl.Kernel`.

mod profile;
mod run;
mod source;

use std::panic::{RefUnwindSafe, UnwindSafe};

use ex_cubecl_core::launch::kernel::Kernel;
use ex_cubecl_core::program::tree::Program;
use ex_cubecl_core::threads::large_stack::on_large_stack;
use ex_cubecl_core::{DeviceId, Error};
use rustler::{Env, OwnedEnv, Reference, Resource, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::term::Wire;

struct KernelRef(Kernel);

#[rustler::resource_impl]
impl Resource for KernelRef {}

// A kernel does not change.
impl UnwindSafe for KernelRef {}
impl RefUnwindSafe for KernelRef {}

/// Decodes, checks and hashes up to 20,000 nodes. A call of a cached kernel does not use it.
#[rustler::nif(schedule = "DirtyCpu")]
fn kernel_new<'a>(program: Term<'a>) -> NifResult<'a, ResourceArc<KernelRef>> {
    let program_env = OwnedEnv::new();
    let saved = program_env.save(program);
    // The decoder recurses for each level of the tree, and the stack size of a scheduler is set by a flag of the VM.
    let decode = move || {
        let decoded = program_env.run(|env| saved.load(env).decode::<Wire<Program>>());
        decoded.map_err(|_| Error::BadKernel {
            // The decoder refuses no other tree that Elixir's type checker makes.
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
