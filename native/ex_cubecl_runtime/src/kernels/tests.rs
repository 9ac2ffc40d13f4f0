//! The kernels on the software device, which every machine has, against a model in host memory.
#![allow(clippy::unwrap_used)]

mod conversions;
mod copies;

use std::sync::LazyLock;

use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::stream_id::StreamId;
use cubecl::wgpu::{
    MemoryConfiguration, RuntimeOptions, Vulkan, WgpuDevice, WgpuRuntime, init_device, init_setup,
};

use super::Window;

type Client = ComputeClient<WgpuRuntime>;

fn options() -> RuntimeOptions {
    RuntimeOptions {
        tasks_max: 32,
        memory_config: MemoryConfiguration::ExclusivePages,
    }
}

/// The kernels as SPIR-V, and as WGSL, which CubeCL uses for every other API.
static DEVICES: LazyLock<[Client; 2]> = LazyLock::new(|| {
    on_stream(|| {
        let device = WgpuDevice::Cpu;
        let mut setup = init_setup::<Vulkan>(&device, options());
        setup.backend = wgpu::Backend::Dx12;
        let other = init_device(setup, options());
        [WgpuRuntime::client(&device), WgpuRuntime::client(&other)]
    })
});

fn on_stream<T>(work: impl FnOnce() -> T) -> T {
    StreamId { value: 0 }.executes(work)
}

/// Device memory with its expected content on the host.
struct Page {
    window: Window,
    model: Vec<u8>,
}

impl Page {
    fn new(client: &Client, model: Vec<u8>) -> Self {
        let window = Window {
            handle: client.create_from_slice(&model),
            words: model.len() as u64 / 4,
            offset: 0,
        };
        Page { window, model }
    }

    fn at(&self, offset: usize) -> Window {
        Window {
            offset: offset as u64,
            ..self.window.clone()
        }
    }

    #[track_caller]
    fn check(&self, client: &Client, case: &str) {
        block_on(client.sync()).unwrap();
        let bytes = client.read_one(self.window.handle.clone()).unwrap();
        assert!(bytes.len() >= self.model.len(), "{case}: a short read");
        let differs = bytes.iter().zip(&self.model).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let (got, expected) = (
                &bytes[at / 16 * 16..][..16],
                &self.model[at / 16 * 16..][..16],
            );
            assert_eq!(got, expected, "{case}: byte {at}");
        }
    }
}
