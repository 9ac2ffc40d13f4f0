//! The adapters of this machine: Vulkan, Metal and DirectX.

use cubecl::future::block_on;
use ex_cubecl_core::device_id::{DeviceId, Runtime};
use ex_cubecl_core::driver::{Hardware, Info};
use ex_cubecl_core::dtype::DType;
use parking_lot::Mutex;
use wgpu::{Adapter, Backend as Api, DeviceType, Features};

use crate::wgpu::host_memory::host_memory;

pub(super) fn adapters() -> (wgpu::Instance, Vec<Adapter>) {
    let backends = if cfg!(target_os = "macos") {
        wgpu::Backends::METAL
    } else {
        wgpu::Backends::VULKAN | wgpu::Backends::DX12
    };
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let adapters = block_on(instance.enumerate_adapters(backends));
    (instance, adapters)
}

/// Returns the devices of the first call that found any: ids must not change while a VM runs.
pub fn enumerate() -> Vec<Info> {
    static FOUND: Mutex<Vec<Info>> = Mutex::new(Vec::new());
    let mut found = FOUND.lock();
    if found.is_empty() {
        let (_instance, adapters) = adapters();
        *found = numbered(&adapters)
            .map(|(id, adapter)| describe(id, adapter))
            .collect();
    }
    found.clone()
}

/// Drivers may report any number; kernels need not have more buffers than on CUDA.
const MAX_BUFFERS: u32 = 64;

/// Adapters with their ids, whose index counts the adapters of the same API.
pub(super) fn numbered(adapters: &[Adapter]) -> impl Iterator<Item = (DeviceId, &Adapter)> {
    let mut next = [0; Runtime::ALL.len()];
    adapters.iter().filter_map(move |adapter| {
        let runtime = match adapter.get_info().backend {
            Api::Vulkan => Runtime::Vulkan,
            Api::Metal => Runtime::Metal,
            Api::Dx12 => Runtime::Dx12,
            _ => return None,
        };
        let index = next[runtime as usize];
        next[runtime as usize] += 1;
        Some((DeviceId { runtime, index }, adapter))
    })
}

fn describe(id: DeviceId, adapter: &Adapter) -> Info {
    let info = adapter.get_info();
    let (total_memory, dtypes) = vulkan_facts(adapter).unwrap_or((None, feature_types(adapter)));
    let limits = adapter.limits();
    let page = limits.max_storage_buffer_binding_size;
    // CubeCL binds one buffer of its own, with the scalars.
    let bindings = limits.max_storage_buffers_per_shader_stage - 1;
    Info {
        id,
        adapter: id,
        hardware: match info.device_type {
            DeviceType::DiscreteGpu => Hardware::DiscreteGpu,
            DeviceType::IntegratedGpu => Hardware::IntegratedGpu,
            DeviceType::VirtualGpu => Hardware::VirtualGpu,
            DeviceType::Cpu => Hardware::Cpu,
            DeviceType::Other => Hardware::Other,
        },
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_string(),
        max_buffer: page / 256 * 256,
        max_buffers: bindings.min(MAX_BUFFERS),
        // A CPU device has the memory of its machine, whatever its driver reports.
        total_memory: match info.device_type {
            DeviceType::Cpu => host_memory("MemTotal:").or(total_memory),
            _ => total_memory,
        },
        dtypes,
        pci_address: if info.device_pci_bus_id.is_empty() {
            format!("{:04x}:{:04x} {}", info.vendor, info.device, info.name)
        } else {
            info.device_pci_bus_id.to_lowercase()
        },
        name: info.name,
    }
}

/// Types that shaders support in every wgpu API, and those that this adapter adds.
fn feature_types(adapter: &Adapter) -> Vec<DType> {
    let features = adapter.features();
    let optional = [
        (Features::SHADER_F16, [DType::F16].as_slice()),
        (Features::SHADER_F64, &[DType::F64]),
        (Features::SHADER_INT64, &[DType::S64, DType::U64]),
    ];
    let added = optional
        .iter()
        .filter(|(feature, _)| features.contains(*feature));
    let mut types = vec![DType::F32, DType::S32, DType::U32];
    types.extend(added.flat_map(|(_, types)| *types));
    types
}

/// What Vulkan reports and wgpu does not: the memory heaps, and the 8-bit and 16-bit types.
fn vulkan_facts(adapter: &Adapter) -> Option<(Option<u64>, Vec<DType>)> {
    use ash::vk;
    // SAFETY:
    // - The raw handles are used while `hal` keeps the instance and the physical device alive.
    // - All calls are queries, which change nothing.
    // - `narrow` outlives the query that fills it.
    // - If the loader or the driver lacks a function, ash calls a substitute that panics, and a
    //   panic must not unwind out of that substitute. So functions beyond Vulkan 1.0 are called
    //   only if both the loader and the driver report at least version 1.1.
    unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = hal.shared_instance().raw_instance();
        let physical = hal.raw_physical_device();
        let memory = instance.get_physical_device_memory_properties(physical);
        let local = |heap: &&vk::MemoryHeap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
        let total = memory
            .memory_heaps_as_slice()
            .iter()
            .filter(local)
            .map(|heap| heap.size)
            .sum();
        let device_version = instance
            .get_physical_device_properties(physical)
            .api_version;
        let version = device_version.min(hal.shared_instance().instance_api_version());
        if version < vk::API_VERSION_1_1 {
            return Some((Some(total), feature_types(adapter)));
        }
        let mut narrow = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut narrow);
        instance.get_physical_device_features2(physical, &mut all);
        let core = all.features;
        Some((Some(total), vulkan_types(&core, &narrow)))
    }
}

/// Whether Vulkan reports the operations on subgroups that kernels use. CubeCL does not use those of CPU drivers, and wgpu reports
/// subgroups only with operations that kernels do not use.
pub(super) fn has_subgroups(adapter: &Adapter) -> bool {
    use ash::vk;
    use ash::vk::SubgroupFeatureFlags as Operations;
    // SAFETY: as in `vulkan_facts`; `subgroups` outlives the query that fills it.
    let found = unsafe {
        let Some(hal) = adapter.as_hal::<wgpu::hal::api::Vulkan>() else {
            return false;
        };
        let instance = hal.shared_instance().raw_instance();
        let physical = hal.raw_physical_device();
        let device_version = instance
            .get_physical_device_properties(physical)
            .api_version;
        let version = device_version.min(hal.shared_instance().instance_api_version());
        if version < vk::API_VERSION_1_1 {
            return false;
        }
        let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut subgroups);
        instance.get_physical_device_properties2(physical, &mut all);
        subgroups
    };
    let needed = Operations::BASIC | Operations::ARITHMETIC | Operations::BALLOT;
    found.supported_operations.contains(needed)
        && found
            .supported_stages
            .contains(vk::ShaderStageFlags::COMPUTE)
}

fn vulkan_types(
    core: &ash::vk::PhysicalDeviceFeatures,
    narrow: &ash::vk::PhysicalDeviceShaderFloat16Int8Features<'_>,
) -> Vec<DType> {
    let optional = [
        (core.shader_float64, [DType::F64].as_slice()),
        (core.shader_int64, &[DType::S64, DType::U64]),
        (core.shader_int16, &[DType::S16, DType::U16]),
        (narrow.shader_float16, &[DType::F16]),
        (narrow.shader_int8, &[DType::S8, DType::U8]),
    ];
    let added = optional
        .iter()
        .filter(|(supported, _)| *supported == ash::vk::TRUE);
    let mut types = vec![DType::F32, DType::S32, DType::U32];
    types.extend(added.flat_map(|(_, types)| *types));
    types
}

pub fn missing() -> String {
    let driver = match std::env::consts::OS {
        "linux" => "no Vulkan driver was found (Debian: libvulkan1 and mesa-vulkan-drivers)",
        "windows" => "no Vulkan or DirectX 12 driver was found",
        _ => "no Metal device was found",
    };
    driver.to_string()
}
