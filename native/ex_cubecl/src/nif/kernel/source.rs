//! `ExCubecl.Kernel.Source`: kernels written in WGSL.

use ex_cubecl_core::Error;
use ex_cubecl_core::launch::source::run_source;
use ex_cubecl_core::program::source::Source;
use ex_cubecl_runtime::parse_source;
use rustler::{Env, Reference, Resource, ResourceArc};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::resource::{BufferArg, buffers};
use crate::term::ListOf;

struct SourceRef(Source);

#[rustler::resource_impl]
impl Resource for SourceRef {}

/// Checks a WGSL source, its entry point and, if given, its workgroup size.
#[rustler::nif(schedule = "DirtyCpu")]
fn source_new(
    text: String,
    entry: String,
    workgroup_size: Option<(u32, u32, u32)>,
) -> NifResult<'static, ResourceArc<SourceRef>> {
    let workgroup_size = workgroup_size.map(|(x, y, z)| [x, y, z]);
    let source = parse_source(text, entry, workgroup_size)?;
    Ok(ResourceArc::new(SourceRef(source)))
}

#[rustler::nif]
fn source_run<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    source: ResourceArc<SourceRef>,
    arguments: ListOf<BufferArg>,
    groups: (u32, u32, u32),
) -> Pending<'a> {
    let groups = [groups.0, groups.1, groups.2];
    let device = arguments.first().map(|buffer| buffer.device().clone());
    let run = move || {
        run_source(&source.0, &buffers(&arguments), groups)?;
        Ok::<_, Error>(atoms::ok())
    };
    match device {
        Some(device) => Call::new(env, tag).run(&device, move || Ok(run()?)),
        None => Ok(run()?),
    }
}
