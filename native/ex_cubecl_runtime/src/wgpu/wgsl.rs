//! Kernel sources in WGSL: naga parses and validates them, wgpu runs them. wgpu keeps each access inside the bound
//! range, so the bound range of a buffer ends at its last byte.

use std::sync::Arc;
use std::time::Duration;

use cubecl::future::block_on;
use parking_lot::Mutex;
use wgpu::naga;
use wgpu::naga::front::wgsl::parse_str;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::lru::Lru;
use crate::wgpu::gpu::Gpu;
use crate::wgpu::source_bounds as bounds;
use crate::wgpu::time_limit::Bounded;
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::source::{Interface, Source};

/// Limits of the pipeline cache: the number of pipelines, and the bytes of their sources. The least recently used
/// pipelines are evicted.
const MOST_PIPELINES: usize = 256;
const MOST_BYTES: u64 = 4 << 20;

/// Bytes of private and local variables of one thread. WGSL lets an implementation limit them, and requires at least
/// 8,192 bytes. Drivers keep them on stacks.
const MAX_VARIABLES: u64 = 16 << 10;

/// The same limit on a CPU. Mesa's lavapipe generates code for each element of a thread's array, in a time that grows
/// with the square of their number and that nothing limits.
const MAX_VARIABLES_OF_CPU: u64 = 1 << 10;

/// Nesting levels of types: WGSL requires at least 15.
const MAX_TYPES: u32 = 32;

/// Time limits for checking a source and for compiling it, far above what any source within the bounds takes.
static CHECKING: Bounded = Bounded::new(Duration::from_secs(30), 2);
static COMPILING: Bounded = Bounded::new(Duration::from_secs(120), 2);

/// Runs on a thread of its own, because naga is recursive in the nesting of the source.
pub fn parse(text: &str, entry: &str) -> Result<Interface> {
    bounds::check(text).map_err(bad)?;
    let (text, entry) = (text.to_string(), entry.to_string());
    CHECKING.run("checking the source", move || {
        parsed(&text, &entry).map_err(bad)
    })
}

fn parsed(text: &str, entry: &str) -> std::result::Result<Interface, String> {
    let module = parse_str(text).map_err(|fault| {
        let place = fault.location(text);
        placed(place, fault.message())
    })?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.validate(&module).map_err(|fault| {
        let place = fault.location(text);
        placed(place, &causes(fault.as_inner()))
    })?;
    let mut compute = module.entry_points.iter();
    let found = compute.find(|point| point.name == entry);
    let found = found.ok_or_else(|| {
        let names = module.entry_points.iter().map(|point| point.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        if names.is_empty() {
            "no entry point: write @compute @workgroup_size(64) before a function".into()
        } else {
            format!("no entry point {entry}: there is {names}")
        }
    })?;
    if found.stage != naga::ShaderStage::Compute {
        return Err(format!("{entry} is no compute shader"));
    }
    types(&module)?;
    let variables = bytes(&module, naga::AddressSpace::Private) + locals(&module);
    if variables > MAX_VARIABLES {
        return Err(too_many(variables, MAX_VARIABLES));
    }
    Ok(Interface {
        writes: bindings(&module)?,
        threads: found.workgroup_size,
        variables,
        shared: bytes(&module, naga::AddressSpace::WorkGroup),
    })
}

fn too_many(bytes: u64, most: u64) -> String {
    format!("{bytes} bytes of private and local arrays: at most {most} for a thread")
}

/// Limits the nesting of types, because drivers are recursive in it.
fn types(module: &naga::Module) -> std::result::Result<(), String> {
    let mut depths: Vec<u32> = Vec::new();
    for (_, ty) in module.types.iter() {
        let depth = |inner: naga::Handle<naga::Type>| depths.get(inner.index()).copied();
        let inner = match &ty.inner {
            naga::TypeInner::Array { base, .. } => depth(*base),
            naga::TypeInner::Struct { members, .. } => {
                members.iter().filter_map(|member| depth(member.ty)).max()
            }
            _ => None,
        };
        depths.push(inner.unwrap_or(0) + 1);
    }
    if depths.iter().any(|depth| *depth > MAX_TYPES) {
        Err(format!(
            "types of more than {MAX_TYPES} levels, one in the other"
        ))
    } else {
        Ok(())
    }
}

/// The size of an array or a struct; 0 for other types, which are in registers.
fn size(module: &naga::Module, ty: naga::Handle<naga::Type>) -> u64 {
    let inner = &module.types[ty].inner;
    match inner {
        naga::TypeInner::Array { .. } | naga::TypeInner::Struct { .. } => {
            u64::from(inner.size(module.to_ctx()))
        }
        _ => 0,
    }
}

/// Bytes of the arrays and structs of the module in this address space.
fn bytes(module: &naga::Module, space: naga::AddressSpace) -> u64 {
    let globals = module.global_variables.iter().map(|it| it.1);
    let there = globals.filter(|variable| variable.space == space);
    there.map(|variable| size(module, variable.ty)).sum()
}

fn locals(module: &naga::Module) -> u64 {
    let points = module.entry_points.iter().map(|point| &point.function);
    let functions = module.functions.iter().map(|it| it.1).chain(points);
    let locals = functions.flat_map(|function| function.local_variables.iter());
    locals.map(|(_, variable)| size(module, variable.ty)).sum()
}

/// For each of the bindings 0, 1, 2, ... of group 0, whether the source can write to it. Each must be a storage buffer.
fn bindings(module: &naga::Module) -> std::result::Result<Vec<bool>, String> {
    let mut found = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(place) = variable.binding else {
            continue;
        };
        let name = variable.name.as_deref().unwrap_or("a variable");
        match variable.space {
            naga::AddressSpace::Storage { access } if place.group == 0 => {
                found.push((place.binding, access.contains(naga::StorageAccess::STORE)))
            }
            naga::AddressSpace::Storage { .. } => {
                return Err(format!("{name} is not of @group(0), where the buffers are"));
            }
            _ => {
                return Err(format!(
                    "{name} is no buffer: expected var<storage, read> or var<storage, read_write>"
                ));
            }
        }
    }
    found.sort_unstable();
    match found.iter().enumerate().all(|(at, it)| it.0 == at as u32) {
        true if found.is_empty() => Err("no var<storage> is bound: a kernel needs a buffer".into()),
        true => Ok(found.into_iter().map(|it| it.1).collect()),
        false => Err("the bindings of @group(0) are not 0, 1, 2 and so on, each once".into()),
    }
}

fn placed(place: Option<naga::SourceLocation>, text: &str) -> String {
    match place {
        Some(place) => format!(
            "line {}, column {}: {text}",
            place.line_number, place.line_position
        ),
        None => text.to_string(),
    }
}

fn causes(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut inner = fault.source();
    while let Some(cause) = inner {
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    text
}

fn bad(reason: String) -> Error {
    let reason = reason.into();
    Error::BadKernel { reason }
}

/// Compiled pipelines, by source text and entry point.
pub struct Pipelines(Mutex<Lru<(String, String), Arc<wgpu::ComputePipeline>>>);

impl Default for Pipelines {
    fn default() -> Self {
        Pipelines(Mutex::new(Lru::new(MOST_PIPELINES, MOST_BYTES)))
    }
}

/// A buffer, the offset of the bound range in it, and the length of the range in bytes.
pub type Bound<'a> = (&'a wgpu::Buffer, u64, u64);

impl Pipelines {
    pub fn run(
        &self,
        gpu: &Gpu,
        is_cpu: bool,
        source: &Source,
        buffers: &[Bound<'_>],
        [x, y, z]: [u32; 3],
    ) -> Result<()> {
        let pipeline = self.pipeline(gpu, is_cpu, source)?;
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(at, (buffer, offset, size))| wgpu::BindGroupEntry {
                binding: at as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: *offset,
                    size: wgpu::BufferSize::new(*size),
                }),
            })
            .collect();
        let commands = checked(&gpu.device, || {
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(x, y, z);
            drop(pass);
            encoder.finish()
        })?;
        gpu.submit(Some(commands));
        Ok(())
    }

    fn pipeline(
        &self,
        gpu: &Gpu,
        is_cpu: bool,
        source: &Source,
    ) -> Result<Arc<wgpu::ComputePipeline>> {
        let key = (source.text.clone(), source.entry.clone());
        if let Some(known) = self.0.lock().get(&key) {
            return Ok(known.clone());
        }
        fits(&gpu.device, is_cpu, &source.interface)?;
        let (device, compiled) = (gpu.device.clone(), source.clone());
        let made = COMPILING.run("compiling the source", move || {
            checked(&device, || compile(&device, &compiled))
        })?;
        let (made, bytes) = (Arc::new(made), source.text.len() as u64);
        self.0.lock().insert(key, made.clone(), bytes);
        Ok(made)
    }
}

/// Checks limits that wgpu leaves to the driver.
fn fits(device: &wgpu::Device, is_cpu: bool, interface: &Interface) -> Result<()> {
    let room = u64::from(device.limits().max_compute_workgroup_storage_size);
    if interface.shared > room {
        return Err(bad(format!(
            "{} bytes of workgroup memory: a group has {room} on this device",
            interface.shared
        )));
    }
    if is_cpu && interface.variables > MAX_VARIABLES_OF_CPU {
        Err(bad(
            too_many(interface.variables, MAX_VARIABLES_OF_CPU) + " on a CPU"
        ))
    } else {
        Ok(())
    }
}

fn compile(device: &wgpu::Device, source: &Source) -> wgpu::ComputePipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
    });
    let entries: Vec<_> = source
        .interface
        .writes
        .iter()
        .enumerate()
        .map(|(at, writes)| wgpu::BindGroupLayoutEntry {
            binding: at as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !writes },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&layout),
        module: &module,
        entry_point: Some(&source.entry),
        compilation_options: Default::default(),
        cache: None,
    })
}

/// Returns wgpu's validation errors as results; without an error scope they would be panics.
fn checked<T>(device: &wgpu::Device, make: impl FnOnce() -> T) -> Result<T> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let made = make();
    match block_on(scope.pop()) {
        None => Ok(made),
        Some(fault) => Err(bad(in_a_line(&fault.to_string()))),
    }
}

/// wgpu's messages have a line for each cause.
fn in_a_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let told = lines.filter(|line| !matches!(*line, "" | "Validation Error" | "Caused by:"));
    told.collect::<Vec<_>>().join(": ")
}
