//! Sources in WGSL: naga reads and checks them, wgpu runs them. wgpu keeps each access inside of what is
//! bound, so a buffer is bound to its last byte and no further.

use std::collections::HashMap;
use std::sync::Arc;

use cubecl::future::block_on;
use parking_lot::Mutex;
use wgpu::naga;
use wgpu::naga::front::wgsl::parse_str;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

use super::staging::Gpu;
use crate::error::{Error, Result};
use crate::kernel::source::Source;

/// Pipelines that are kept; past that they start anew.
const MOST_PIPELINES: usize = 256;

/// Whether each buffer is written, and the threads of a group.
pub type Parsed = (Vec<bool>, [u32; 3]);

pub fn parse(text: &str, entry: &str) -> std::result::Result<Parsed, String> {
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
        format!("no entry point {entry}: there is {names}")
    })?;
    if found.stage != naga::ShaderStage::Compute {
        return Err(format!("{entry} is no compute shader"));
    }
    Ok((bindings(&module)?, found.workgroup_size))
}

/// The bindings 0, 1, 2, ... of group 0, each a storage buffer.
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

/// What is compiled of sources.
#[derive(Default)]
pub struct Pipelines(Mutex<HashMap<(String, String), Arc<wgpu::ComputePipeline>>>);

/// A buffer, from where on, and how many bytes.
pub type Bound<'a> = (&'a wgpu::Buffer, u64, u64);

impl Pipelines {
    pub fn run(
        &self,
        gpu: &Gpu,
        source: &Source,
        buffers: &[Bound<'_>],
        [x, y, z]: [u32; 3],
    ) -> Result<()> {
        let pipeline = self.pipeline(gpu, source)?;
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
        let commands = checked(gpu, || {
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

    fn pipeline(&self, gpu: &Gpu, source: &Source) -> Result<Arc<wgpu::ComputePipeline>> {
        let key = (source.text.clone(), source.entry.clone());
        if let Some(known) = self.0.lock().get(&key) {
            return Ok(known.clone());
        }
        let made = Arc::new(checked(gpu, || compile(&gpu.device, source))?);
        let mut known = self.0.lock();
        if known.len() >= MOST_PIPELINES {
            known.clear();
        }
        known.insert(key, made.clone());
        Ok(made)
    }
}

fn compile(device: &wgpu::Device, source: &Source) -> wgpu::ComputePipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
    });
    let entries: Vec<_> = source
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

/// Has wgpu tell what it finds wrong, which would otherwise be a panic.
fn checked<T>(gpu: &Gpu, make: impl FnOnce() -> T) -> Result<T> {
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let made = make();
    match block_on(scope.pop()) {
        None => Ok(made),
        Some(fault) => Err(Error::BadKernel {
            reason: in_a_line(&fault.to_string()).into(),
        }),
    }
}

/// wgpu's messages have a line for each cause.
fn in_a_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let told = lines.filter(|line| !matches!(*line, "" | "Validation Error" | "Caused by:"));
    told.collect::<Vec<_>>().join(": ")
}
