//! NVIDIA GPUs through CubeCL's CUDA runtime. The CUDA driver is looked for before CubeCL is
//! called, which would panic without one.

mod context;
mod driver_api;

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::server::Handle;
use ex_cubecl_core::device_id::{DeviceId, Runtime};
use ex_cubecl_core::driver::{Driver, Hardware, Info, Region};
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::error::{Error, Result};

use crate::cube::{Backend, Client, Cube, allocation};
use crate::cuda::context::Context;
use crate::cuda::driver_api::{DriverApi, has_compiler};

pub fn enumerate() -> Vec<Info> {
    static FOUND: OnceLock<Vec<Info>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match DriverApi::get() {
        Some(api) => (0..api.count()).map(|index| describe(api, index)).collect(),
        None => Vec::new(),
    });
    found.clone()
}

fn describe(api: &DriverApi, index: u32) -> Info {
    let device = index as c_int;
    let total_memory = api.memory(device);
    let id = DeviceId {
        runtime: Runtime::Cuda,
        index,
    };
    Info {
        id,
        adapter: id,
        name: api
            .text(b"cuDeviceGetName", device)
            .unwrap_or_else(|| "NVIDIA GPU".to_string()),
        hardware: Hardware::DiscreteGpu,
        driver: api.version(),
        // CubeCL's largest page.
        max_buffer: total_memory.unwrap_or(0) / 4 / 512 * 512,
        // The parameters of a kernel have room for 4 KiB.
        max_buffers: 64,
        total_memory,
        dtypes: DType::all().filter(|dtype| *dtype != DType::F64).collect(),
        pci_address: api
            .text(b"cuDeviceGetPCIBusId", device)
            .unwrap_or_default()
            .to_lowercase(),
    }
}

pub fn open(info: &Info) -> Result<Box<dyn Driver>> {
    if !has_compiler() {
        return Err(Error::driver(
            "CUDA's run-time compiler (NVRTC) is missing: install the package cuda-nvrtc or the CUDA toolkit",
        ));
    }
    let device = CudaDevice::new(info.adapter.index as usize);
    let backend = Cuda {
        device: info.adapter.index as c_int,
        lost: AtomicBool::new(false),
    };
    Ok(Box::new(Cube::new(info.id, &device, backend)?))
}

pub fn missing() -> String {
    "no CUDA driver was found (libcuda, part of NVIDIA's driver)".to_string()
}

struct Cuda {
    /// The ordinal of the adapter.
    device: c_int,
    lost: AtomicBool,
}

impl Backend for Cuda {
    type Runtime = CudaRuntime;

    const MAX_PROGRAMS: Option<usize> = Some(16_384);

    /// The address of the page, which does not change.
    type PageData = u64;

    fn page_data(client: &Client<Self>, handle: &Handle) -> Result<u64> {
        let resource = client.get_resource(handle.clone()).map_err(Error::driver)?;
        Ok(resource.resource().ptr)
    }

    fn pointer(&self, region: Region<'_>) -> Option<u64> {
        let page = allocation::<Cuda>(region.page).ok()?;
        Some(page.data + region.offset)
    }

    fn copy_addresses(cube: &Cube<Self>, source: u64, target: u64, bytes: u64) -> Result<()> {
        let api = DriverApi::get().ok_or_else(|| Error::driver(missing()))?;
        let context = Context::enter(api, cube.backend.device)?;
        if !context.covers(source, bytes) {
            return Err(Error::BadAddress {
                address: source,
                bytes,
                device: cube.id,
            });
        }
        context.copy(source, target, bytes)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Acquire)
    }

    /// CubeCL's CUDA server lives as long as the process, so the memory of a reset device is
    /// returned when its buffers are garbage-collected.
    fn lose(&self) {
        self.lost.store(true, Release);
    }
}
