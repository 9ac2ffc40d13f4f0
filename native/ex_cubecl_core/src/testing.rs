//! A device in the memory of the host, for the unit tests of what lies above a driver. It has the operations on
//! bytes; the tests of the runtime crate run everything on real devices.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::device::Device;
use crate::device_id::{DeviceId, Runtime};
use crate::driver::{
    Driver, GroupLimits, Hardware, Info, Limits, Page, PendingRead, Product, Progress, Region, Run,
    Timing,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::program::source::Source;
use crate::program::tree::{Atomic, Program};

type Bytes = Mutex<Vec<u8>>;

const ID: DeviceId = DeviceId {
    runtime: Runtime::Vulkan,
    index: 0,
};

/// A device that is not in the registry.
pub fn host_device() -> Arc<Device> {
    let info = Info {
        id: ID,
        adapter: ID,
        name: "host".into(),
        hardware: Hardware::Cpu,
        driver: String::new(),
        max_buffer: 1 << 30,
        max_buffers: 8,
        total_memory: None,
        dtypes: Vec::new(),
        pci_address: String::new(),
    };
    Device::new(info, Arc::new(HostDriver), None)
}

pub struct HostDriver;

struct Ready(Vec<u8>);

impl PendingRead for Ready {
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        _patience: Option<Duration>,
    ) -> Result<()> {
        out.copy_from_slice(&self.0[skip..skip + out.len()]);
        Ok(())
    }
}

fn with_bytes<T>(region: Region<'_>, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut bytes = region.page.raw.downcast_ref::<Bytes>().unwrap().lock();
    let start = region.offset as usize;
    work(&mut bytes[start..start + region.len as usize])
}

fn unsupported<T>(operation: &'static str) -> Result<T> {
    Err(Error::Unsupported {
        operation,
        device: ID,
    })
}

impl Driver for HostDriver {
    fn limits(&self) -> Limits {
        Limits {
            max_page: 1 << 30,
            alignment: 256,
        }
    }

    fn alloc(&self, bytes: u64) -> Result<Page> {
        let raw: Bytes = Mutex::new(vec![0; bytes as usize]);
        let raw = Box::new(raw);
        Ok(Page { bytes, raw })
    }

    fn share(&self, _page: &Page) -> Result<()> {
        Ok(())
    }

    fn write(&self, dst: Region<'_>, data: &[u8], _progress: Option<&Progress>) -> Result<()> {
        with_bytes(dst, |bytes| bytes.copy_from_slice(data));
        Ok(())
    }

    fn defer_write(&self, _dst: Region<'_>, _data: &[u8]) -> bool {
        false
    }

    fn read(&self, src: Region<'_>, _progress: Option<&Progress>) -> Result<Box<dyn PendingRead>> {
        Ok(Box::new(Ready(with_bytes(src, |bytes| bytes.to_vec()))))
    }

    fn copy(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        let copied = with_bytes(src, |bytes| bytes.to_vec());
        with_bytes(dst, |bytes| bytes.copy_from_slice(&copied));
        Ok(())
    }

    fn fill(&self, dst: Region<'_>, pattern: u64, size: u64) -> Result<()> {
        let element = &pattern.to_le_bytes()[..size as usize];
        let elements = element.repeat((dst.len / size) as usize);
        self.write(dst, &elements, None)
    }

    fn iota(&self, _dst: Region<'_>, _dtype: DType) -> Result<()> {
        unsupported("iota")
    }

    fn convert(&self, _: Region<'_>, _: DType, _: Region<'_>, _: DType) -> Result<()> {
        unsupported("convert")
    }

    fn launch(&self, _runs: &[Run<'_>]) -> Result<()> {
        unsupported("launch")
    }

    fn try_launch(&self, _run: &Run<'_>) -> Result<bool> {
        Ok(false)
    }

    fn compile(&self, _program: &Arc<Program>) -> Result<()> {
        unsupported("compile")
    }

    fn is_compiled(&self, _program: &Arc<Program>) -> bool {
        false
    }

    fn matmul(&self, _: &Product<'_>) -> Result<bool> {
        Ok(false)
    }

    fn run_source(&self, _: &Source, _: &[Region<'_>], _: [u32; 3]) -> Result<()> {
        unsupported("run_source")
    }

    fn group_limits(&self) -> GroupLimits {
        GroupLimits {
            threads: 0,
            shared_bytes: 0,
        }
    }

    fn supports_atomic(&self, _op: Atomic, _dtype: DType) -> bool {
        false
    }

    fn supports_planes(&self) -> bool {
        false
    }

    fn supports_compute(&self, _dtype: DType) -> bool {
        false
    }

    fn supports_convert(&self, _dtype: DType) -> bool {
        false
    }

    fn start_timing(&self) -> Result<u64> {
        unsupported("start_timing")
    }

    fn stop_timing(&self, _number: u64) -> Result<Timing> {
        unsupported("stop_timing")
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn reserved(&self) -> Result<u64> {
        Ok(0)
    }

    fn release_pages(&self) -> Result<()> {
        Ok(())
    }

    fn trim(&self) -> Result<()> {
        Ok(())
    }

    fn pointer(&self, _region: Region<'_>) -> Result<u64> {
        unsupported("pointer")
    }

    fn copy_from_pointer(&self, _address: u64, _dst: Region<'_>) -> Result<()> {
        unsupported("copy_from_pointer")
    }

    fn is_lost(&self) -> bool {
        false
    }

    fn lose(&self) {}
}
