//! Devices of wgpu. They are created here and handed to CubeCL, so that a lost one can
//! be replaced in the same VM and the queue is available for transfers.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, OnceLock};

use cubecl::future::block_on;
use cubecl::server::Handle;
use cubecl::wgpu::{
    MemoryConfiguration, RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup, init_device,
};
use ex_cubecl_core::device_id::DeviceId;
use ex_cubecl_core::driver::{Driver, Hardware, Info, Page, PendingRead, Progress, Region};
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::source::Source;
use wgpu::{Adapter, Backend as Api, Features};

use crate::cube::address_space::Reservation;
use crate::cube::timing::Timestamps;
use crate::cube::{Backend, Client, Cube, allocation};
use crate::lower::support;
use crate::wgpu::adapters::{adapters, has_subgroups, numbered};
use crate::wgpu::gpu::Gpu;
use crate::wgpu::host_memory::host_memory;
use crate::wgpu::priority::{at_low_priority, without_preemption};
use crate::wgpu::staging::Staging;
use crate::wgpu::timestamps::Readings;
use crate::wgpu::wgsl::Pipelines;

/// Copies inside one buffer up to this size go through a scratch buffer, larger ones through a
/// kernel, which moves half as many bytes.
const SCRATCH_BYTES: u64 = 1 << 20;

/// A CPU device shares its memory with all other processes. A sixteenth of the machine's memory,
/// and at least this much, is left to them.
const HOST_RESERVE: u64 = 512 << 20;
/// Smaller requests are not checked against the machine's memory: they do not decide whether it
/// runs out.
const WORTH_ASKING: u64 = 1 << 20;

pub fn open(info: &Info) -> Result<Box<dyn Driver>> {
    match info.hardware {
        Hardware::Cpu => without_preemption(|| open_here(info)),
        _ => open_here(info),
    }
}

/// The threads of the device inherit the priority of the calling thread.
fn open_here(info: &Info) -> Result<Box<dyn Driver>> {
    let (device, gpu) = register(info)?;
    let backend = Wgpu {
        gpu: Arc::new(gpu),
        staging: Staging::default(),
        pipelines: Pipelines::default(),
        scratch: OnceLock::new(),
        shares_host_memory: info.hardware == Hardware::Cpu,
        id: info.id,
    };
    Ok(Box::new(Cube::new(info.id, &device, backend)?))
}

/// Creates a device and hands it to CubeCL, which refers to it as `Existing(n)` from then on.
pub(crate) fn register(info: &Info) -> Result<(WgpuDevice, Gpu)> {
    let on_cpu = info.hardware == Hardware::Cpu;
    let (instance, adapter, (device, queue)) = if on_cpu {
        at_low_priority(|| create(info))?
    } else {
        create(info)?
    };
    let has_subgroups = has_subgroups(&adapter);
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
    let gpu = Gpu::new(device, queue, lost, on_cpu, has_subgroups);
    Ok((init_device(setup, options), gpu))
}

/// The instance, the adapter and the device, with all threads of the driver.
fn create(info: &Info) -> Result<(wgpu::Instance, Adapter, (wgpu::Device, wgpu::Queue))> {
    let (instance, adapters) = adapters();
    let found = numbered(&adapters).find(|(id, _)| *id == info.adapter);
    let adapter = found.map(|(_, adapter)| adapter.clone());
    let adapter = adapter.ok_or_else(|| Error::driver(format!("{} has gone away", info.id)))?;
    let device = request(&adapter)?;
    Ok((instance, adapter, device))
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
    fn address_space(&self, bytes: u64) -> Result<Reservation> {
        Reservation::new(bytes).map_err(|available| Error::OutOfMemory {
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

/// The data of this backend for a page.
struct RawPage {
    buffer: wgpu::Buffer,
    shared: AtomicBool,
}

fn raw_page(page: &Page) -> Result<&RawPage> {
    Ok(&allocation::<Wgpu>(page)?.data)
}

fn raw(region: Region<'_>) -> Result<&wgpu::Buffer> {
    Ok(&raw_page(region.page)?.buffer)
}

impl Backend for Wgpu {
    type Runtime = WgpuRuntime;

    const ENDS: bool = true;

    type PageData = RawPage;

    fn page_data(client: &Client<Self>, handle: &Handle) -> Result<RawPage> {
        let resource = client.get_resource(handle.clone()).map_err(Error::driver)?;
        let resource = resource.resource();
        match resource.offset {
            0 => Ok(RawPage {
                buffer: resource.buffer.clone(),
                shared: AtomicBool::new(false),
            }),
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
    fn reserve_address_space(&self, bytes: u64) -> Result<Option<Reservation>> {
        if !self.shares_host_memory {
            return Ok(None);
        }
        let reservation = self.address_space(bytes)?;
        if bytes < WORTH_ASKING {
            return Ok(Some(reservation));
        }
        let total = host_memory("MemTotal:").unwrap_or(0);
        let reserve = HOST_RESERVE.max(total / 16);
        match host_memory("MemAvailable:") {
            Some(available) if bytes + reserve > available => Err(Error::OutOfMemory {
                requested: bytes,
                available: Some(available.saturating_sub(reserve)),
                device: self.id,
            }),
            _ => Ok(Some(reservation)),
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
        let _room = if backend.shares_host_memory {
            Some(backend.address_space(src.len)?)
        } else {
            None
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

    fn timestamps(cube: &Cube<Self>) -> Result<Option<Arc<dyn Timestamps>>> {
        let readings = Readings::new(&cube.backend.gpu);
        Ok(readings.map(|readings| Arc::new(readings) as Arc<dyn Timestamps>))
    }

    fn supports_planes(cube: &Cube<Self>) -> bool {
        cube.backend.gpu.has_subgroups || support::supports_planes(&cube.client)
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
