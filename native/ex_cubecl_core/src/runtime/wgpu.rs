//! Vulkan, Metal and DirectX. Devices are created here and handed to CubeCL, so that a lost one can
//! be replaced in the same VM and the queue is available for transfers.

use std::any::Any;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubecl::future::block_on;
use cubecl::server::Handle;
use cubecl::wgpu::{
    MemoryConfiguration, RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup, init_device,
};
use parking_lot::Mutex;
use wgpu::{Adapter, Backend as Api, DeviceType, Features};

use super::backend::Backend;
use super::cube::Cube;
use super::gpu::Gpu;
use super::room::Room;
use super::staging::Staging;
use super::timing::Stamps;
use super::wgsl::Pipelines;
use crate::device::{DeviceId, Hardware, Info, Runtime};
use crate::driver::{Driver, Page, PendingRead, Progress, Region};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::source::Source;

/// Copies inside one buffer up to this size go through a scratch buffer, larger ones through a
/// kernel, which moves half as many bytes.
const SCRATCH_BYTES: u64 = 1 << 20;

/// A CPU device shares its memory with all other processes. A sixteenth of the machine's memory,
/// and at least this much, is left to them.
const HOST_RESERVE: u64 = 512 << 20;
/// Smaller requests are not checked against the machine's memory: they do not decide whether it
/// runs out.
const WORTH_ASKING: u64 = 1 << 20;

fn adapters() -> (wgpu::Instance, Vec<Adapter>) {
    let backends = match cfg!(target_os = "macos") {
        true => wgpu::Backends::METAL,
        false => wgpu::Backends::VULKAN | wgpu::Backends::DX12,
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

/// Adapters with their ids, whose index counts the adapters of the same API.
fn numbered(adapters: &[Adapter]) -> impl Iterator<Item = (DeviceId, &Adapter)> {
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
    let page = adapter.limits().max_storage_buffer_binding_size;
    Info {
        id,
        card: id,
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
        // A CPU device has the memory of its machine, whatever its driver reports.
        total_memory: match info.device_type {
            DeviceType::Cpu => host_memory("MemTotal:").or(total_memory),
            _ => total_memory,
        },
        dtypes,
        adapter: match info.device_pci_bus_id.is_empty() {
            true => format!("{:04x}:{:04x} {}", info.vendor, info.device, info.name),
            false => info.device_pci_bus_id.to_lowercase(),
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
        let card = hal.raw_physical_device();
        let memory = instance.get_physical_device_memory_properties(card);
        let local = |heap: &&vk::MemoryHeap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
        let total = memory
            .memory_heaps_as_slice()
            .iter()
            .filter(local)
            .map(|heap| heap.size)
            .sum();
        let device_version = instance.get_physical_device_properties(card).api_version;
        let version = device_version.min(hal.shared_instance().instance_api_version());
        if version < vk::API_VERSION_1_1 {
            return Some((Some(total), feature_types(adapter)));
        }
        let mut narrow = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut narrow);
        instance.get_physical_device_features2(card, &mut all);
        let core = all.features;
        Some((Some(total), vulkan_types(&core, &narrow)))
    }
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

pub fn open(info: &Info) -> Result<Box<dyn Driver>> {
    let (device, gpu) = register(info)?;
    let backend = Wgpu {
        gpu: Arc::new(gpu),
        staging: Staging::default(),
        pipelines: Pipelines::default(),
        scratch: OnceLock::new(),
        shares_host_memory: info.hardware == Hardware::Cpu,
        id: info.id,
    };
    Ok(Box::new(Cube::new(info.id, &device, backend)))
}

/// Creates a device and hands it to CubeCL, which refers to it as `Existing(n)` from then on.
pub fn register(info: &Info) -> Result<(WgpuDevice, Gpu)> {
    let (instance, adapters) = adapters();
    let found = numbered(&adapters).find(|(id, _)| *id == info.card);
    let adapter = found.map(|(_, adapter)| adapter.clone());
    let adapter = adapter.ok_or_else(|| Error::driver(format!("{} has gone away", info.id)))?;
    let (device, queue) = request(&adapter)?;
    let on_cpu = adapter.get_info().device_type == DeviceType::Cpu;
    let lost = Arc::new(AtomicBool::new(false));
    let signal = lost.clone();
    device.set_device_lost_callback(move |_, _| signal.store(true, Release));
    let setup = WgpuSetup {
        instance,
        backend: adapter.get_info().backend,
        adapter,
        device: device.clone(),
        queue: queue.clone(),
    };
    let options = RuntimeOptions {
        tasks_max: 32,
        memory_config: MemoryConfiguration::ExclusivePages,
    };
    let gpu = Gpu::new(device, queue, lost, on_cpu);
    Ok((init_device(setup, options), gpu))
}

fn request(adapter: &Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    if adapter.get_info().backend == Api::Vulkan
        && let Some(opened) = block_on(cubecl::wgpu::vulkan::request_vulkan_device(adapter))
    {
        return Ok(opened);
    }
    #[cfg(target_os = "macos")]
    if adapter.get_info().backend == Api::Metal {
        return Ok(block_on(cubecl::wgpu::metal::request_metal_device(adapter)));
    }
    let opening = adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter
            .features()
            .difference(Features::MAPPABLE_PRIMARY_BUFFERS),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    });
    block_on(opening).map_err(Error::driver)
}

pub fn missing() -> String {
    let driver = match std::env::consts::OS {
        "linux" => "no Vulkan driver was found (Debian: libvulkan1 and mesa-vulkan-drivers)",
        "windows" => "no Vulkan or DirectX 12 driver was found",
        _ => "no Metal device was found",
    };
    driver.to_string()
}

struct Wgpu {
    gpu: Arc<Gpu>,
    staging: Staging,
    pipelines: Pipelines,
    /// The intermediate buffer for copies inside one buffer, which wgpu forbids. Both halves of
    /// such a copy are in one submission, so that all callers can share it.
    scratch: OnceLock<wgpu::Buffer>,
    shares_host_memory: bool,
    id: DeviceId,
}

impl Wgpu {
    fn address_space(&self, bytes: u64) -> Result<Room> {
        Room::set_aside(bytes).map_err(|available| Error::OutOfMemory {
            requested: bytes,
            available: Some(available),
            device: self.id,
        })
    }

    fn scratch(&self) -> &wgpu::Buffer {
        self.scratch.get_or_init(|| {
            self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: SCRATCH_BYTES,
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }
}

/// Two readings of the device's clock.
struct Readings {
    gpu: Arc<Gpu>,
    set: wgpu::QuerySet,
    ticks: wgpu::Buffer,
}

impl Readings {
    fn read_clock(&self, at: u32) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.write_timestamp(&self.set, at);
        self.gpu.submit(Some(encoder.finish()));
    }
}

impl Stamps for Readings {
    fn begin(&self) {
        self.read_clock(0);
    }

    fn end(&self) {
        self.read_clock(1);
    }

    fn passed(&self) -> Result<Duration> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.resolve_query_set(&self.set, 0..2, &self.ticks, 0);
        self.gpu.submit(Some(encoder.finish()));
        let reading = Staging::default().download(&self.gpu, &self.ticks, 0, 16, None)?;
        let mut bytes = [0; 16];
        reading.wait_into(0, &mut bytes, None)?;
        let ticks: Vec<u64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_ne_bytes(*bytes))
            .collect();
        let passed = match ticks[..] {
            [began, ended] => ended.saturating_sub(began),
            _ => 0,
        };
        Ok(Duration::from_nanos(
            (passed as f64 * self.gpu.tick()) as u64,
        ))
    }
}

/// The data of this backend for a page (`Page::raw`).
struct Raw {
    buffer: wgpu::Buffer,
    shared: AtomicBool,
}

fn raw_page(page: &Page) -> Result<&Raw> {
    let raw = page.raw.downcast_ref::<Raw>();
    raw.ok_or_else(|| Error::driver("a page of another runtime"))
}

fn raw(region: Region<'_>) -> Result<&wgpu::Buffer> {
    Ok(&raw_page(region.page)?.buffer)
}

impl Backend for Wgpu {
    type Runtime = WgpuRuntime;

    const ENDS: bool = true;

    fn adopt(cube: &Cube<Self>, handle: &Handle) -> Result<Box<dyn Any + Send + Sync>> {
        let resource = cube
            .client
            .get_resource(handle.clone())
            .map_err(Error::driver)?;
        let resource = resource.resource();
        match resource.offset {
            0 => Ok(Box::new(Raw {
                buffer: resource.buffer.clone(),
                shared: AtomicBool::new(false),
            })),
            _ => Err(Error::driver("a page that does not start at its buffer")),
        }
    }

    /// wgpu zeroes memory before its first use by a command: the whole range that the command can
    /// access, which may be larger than what it uses. wgpu could thus overwrite the data of another
    /// thread that writes to that range after wgpu has looked for unused memory and before the
    /// submission. So all memory of a page is used once, by a clear, before the page is shared.
    fn share(cube: &Cube<Self>, page: &Page) -> Result<()> {
        let raw = raw_page(page)?;
        if !raw.shared.swap(true, AcqRel) {
            let gpu = &cube.backend.gpu;
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            encoder.clear_buffer(&raw.buffer, 0, None);
            gpu.submit(Some(encoder.finish()));
        }
        Ok(())
    }

    /// Lavapipe allocates memory that the operating system may not be able to provide, and the VM
    /// would be killed.
    fn check_room(&self, bytes: u64) -> Result<Option<Room>> {
        if !self.shares_host_memory {
            return Ok(None);
        }
        let room = self.address_space(bytes)?;
        if bytes < WORTH_ASKING {
            return Ok(Some(room));
        }
        let total = host_memory("MemTotal:").unwrap_or(0);
        let reserve = HOST_RESERVE.max(total / 16);
        match host_memory("MemAvailable:") {
            Some(available) if bytes + reserve > available => Err(Error::OutOfMemory {
                requested: bytes,
                available: Some(available.saturating_sub(reserve)),
                device: self.id,
            }),
            _ => Ok(Some(room)),
        }
    }

    fn write(
        cube: &Cube<Self>,
        dst: Region<'_>,
        data: &[u8],
        progress: Option<&Progress>,
    ) -> Result<()> {
        let backend = &cube.backend;
        backend
            .staging
            .upload(&backend.gpu, raw(dst)?, dst.offset, data, progress)
    }

    fn write_small(cube: &Cube<Self>, dst: Region<'_>, data: &[u8]) -> Result<bool> {
        let backend = &cube.backend;
        Ok(backend.gpu.write_small(raw(dst)?, dst.offset, data))
    }

    fn defer_write(cube: &Cube<Self>, dst: Region<'_>, data: &[u8]) -> bool {
        let gpu = &cube.backend.gpu;
        raw(dst).is_ok_and(|target| gpu.defer_write(target, dst.offset, data))
    }

    fn deferred_writes(&self) -> Arc<dyn Fn() + Send + Sync> {
        let gpu = self.gpu.clone();
        Arc::new(move || gpu.send_deferred())
    }

    fn read(
        cube: &Cube<Self>,
        src: Region<'_>,
        progress: Option<&Progress>,
    ) -> Result<Box<dyn PendingRead>> {
        let backend = &cube.backend;
        // The result is in mapped memory, whose allocation the driver does not check either.
        let _room = match backend.shares_host_memory {
            true => Some(backend.address_space(src.len)?),
            false => None,
        };
        backend
            .staging
            .download(&backend.gpu, raw(src)?, src.offset, src.len, progress)
    }

    /// wgpu copies whole words between different buffers; all other copies are left to a kernel.
    fn copy(cube: &Cube<Self>, src: Region<'_>, dst: Region<'_>) -> Result<bool> {
        let (from, to) = (raw(src)?, raw(dst)?);
        let aligned = (src.offset | dst.offset | src.len).is_multiple_of(4);
        if !aligned || (from == to && src.len > SCRATCH_BYTES) {
            return Ok(false);
        }
        let gpu = &cube.backend.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        if from == to {
            let scratch = cube.backend.scratch();
            encoder.copy_buffer_to_buffer(from, src.offset, scratch, 0, src.len);
            encoder.copy_buffer_to_buffer(scratch, 0, to, dst.offset, src.len);
        } else {
            encoder.copy_buffer_to_buffer(from, src.offset, to, dst.offset, src.len);
        }
        gpu.submit(Some(encoder.finish()));
        Ok(true)
    }

    fn clear(cube: &Cube<Self>, dst: Region<'_>) -> Result<bool> {
        let gpu = &cube.backend.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.clear_buffer(raw(dst)?, dst.offset, Some(dst.len));
        gpu.submit(Some(encoder.finish()));
        Ok(true)
    }

    fn sync(cube: &Cube<Self>) -> Result<()> {
        cube.backend.gpu.sync()
    }

    fn run_source(
        cube: &Cube<Self>,
        source: &Source,
        buffers: &[Region<'_>],
        groups: [u32; 3],
    ) -> Result<()> {
        let bound = buffers.iter();
        let bound = bound.map(|region| Ok((raw(*region)?, region.offset, region.len)));
        let bound = bound.collect::<Result<Vec<_>>>()?;
        let backend = &cube.backend;
        let is_cpu = backend.shares_host_memory;
        let pipelines = &backend.pipelines;
        pipelines.run(&backend.gpu, is_cpu, source, &bound, groups)
    }

    fn stamps(cube: &Cube<Self>) -> Result<Option<Arc<dyn Stamps>>> {
        let device = &cube.backend.gpu.device;
        let wanted = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        if !device.features().contains(wanted) {
            return Ok(None);
        }
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let ticks = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Ok(Some(Arc::new(Readings {
            gpu: cube.backend.gpu.clone(),
            set,
            ticks,
        })))
    }

    fn staging_bytes(&self) -> u64 {
        let scratch = self.scratch.get().map_or(0, |scratch| scratch.size());
        self.staging.bytes() + scratch
    }

    fn trim(&self) {
        self.staging.trim();
    }

    fn is_lost(&self) -> bool {
        self.gpu.lost.load(Acquire)
    }

    fn lose(&self) {
        // Not `destroy`: it frees memory that is still mapped while a read copies from it.
        self.gpu.lost.store(true, Release);
    }
}

/// The value of a line of `/proc/meminfo` on Linux, in bytes.
fn host_memory(line: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|other| other.strip_prefix(line))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
