//! wgpu used as its documentation shows.

use cubecl::future::block_on;
use wgpu::{BufferUsages as Usage, MapMode, PollType};

use crate::{LIVE, SIZES, repetitions, report};

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Gpu {
    fn open() -> Gpu {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let wanted = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = block_on(instance.request_adapter(&wanted)).unwrap();
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
        Gpu { device, queue }
    }

    fn buffer(&self, bytes: usize, usage: Usage) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    fn wait(&self) {
        self.device.poll(PollType::wait_indefinitely()).unwrap();
    }

    fn copy(&self, from: &wgpu::Buffer, to: &wgpu::Buffer, bytes: usize) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes as u64);
        self.queue.submit([encoder.finish()]);
    }
}

pub fn measure() {
    let gpu = Gpu::open();
    for (name, bytes) in SIZES {
        transfers(&gpu, name, bytes);
    }
    saxpy(&gpu);
    for live in LIVE {
        let kept: Vec<_> = (0..live).map(|_| gpu.buffer(256, Usage::STORAGE)).collect();
        report(&format!("raw create {live}"), 1000, || {
            drop(gpu.buffer(256, Usage::STORAGE))
        });
        drop(kept);
        gpu.wait();
    }
}

fn transfers(gpu: &Gpu, name: &str, bytes: usize) {
    let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
    let (target, other) = (gpu.buffer(bytes, usage), gpu.buffer(bytes, usage));
    let staging = gpu.buffer(bytes, Usage::MAP_READ | Usage::COPY_DST);
    let data = vec![7u8; bytes];
    let times = repetitions(bytes);
    report(&format!("raw upload {name}"), times, || {
        gpu.queue.write_buffer(&target, 0, &data);
        gpu.queue.submit([]);
        gpu.wait();
    });
    report(&format!("raw read {name}"), times, || {
        gpu.copy(&target, &staging, bytes);
        staging
            .slice(..)
            .map_async(MapMode::Read, |result| result.unwrap());
        gpu.wait();
        assert_eq!(staging.slice(..).get_mapped_range()[bytes - 1], 7);
        staging.unmap();
    });
    report(&format!("raw copy {name}"), times, || {
        gpu.copy(&target, &other, bytes);
        gpu.wait();
    });
}

/// `a * x + y` over 16 Mi elements, as one would write it by hand.
const SAXPY: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 256u;
    if (i < arrayLength(&out)) {
        out[i] = 2.0 * x[i] + y[i];
    }
}";

fn saxpy(gpu: &Gpu) {
    let elements = 16 << 20;
    let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
    let buffers: Vec<_> = (0..3).map(|_| gpu.buffer(4 * elements, usage)).collect();
    let module = gpu
        .device
        .create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(SAXPY.into()),
        });
    let pipeline = gpu
        .device
        .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
    let entries: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(at, buffer)| wgpu::BindGroupEntry {
            binding: at as u32,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    report("raw saxpy", 15, || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(32_768, (elements / 256 / 32_768) as u32, 1);
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.wait();
    });
}
