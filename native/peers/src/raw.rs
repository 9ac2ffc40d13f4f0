//! wgpu as its documentation shows it.

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
