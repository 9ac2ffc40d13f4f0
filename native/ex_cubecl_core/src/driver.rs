//! The interface between core and the runtimes: what is known of a device before it is opened, and the trait
//! that an open one implements.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::Result;
use crate::program::source::Source;
use crate::program::tree::{Atomic, Program};

/// The kind of hardware. Lavapipe reports itself as a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    DiscreteGpu,
    IntegratedGpu,
    VirtualGpu,
    Cpu,
    Other,
}

/// The properties of a device that are available without opening it.
#[derive(Debug, Clone)]
pub struct Info {
    pub id: DeviceId,
    /// The physical device that this one runs on. It is `id` itself, except for a logical device.
    pub adapter: DeviceId,
    pub name: String,
    pub hardware: Hardware,
    pub driver: String,
    /// The largest buffer in bytes.
    pub max_buffer: u64,
    /// The most buffers that one kernel can read and write.
    pub max_buffers: u32,
    /// The memory of the device in bytes, if the driver reports it.
    pub total_memory: Option<u64>,
    /// The types that kernels can calculate with natively.
    pub dtypes: Vec<DType>,
    /// The PCI address of the adapter, the same in each runtime that reaches it; another text if it has none.
    pub pci_address: String,
}

/// Finds and opens the devices of this machine. A build has one: it is handed to [`crate::registry::set_opener`].
pub trait Opener: Send + Sync {
    /// Every device that could be opened. No device is opened, and a missing driver is not an error.
    fn enumerate(&self) -> Vec<Info>;
    fn open(&self, info: &Info) -> Result<Box<dyn Driver>>;
    /// Why there may be no device.
    fn missing(&self) -> String;
}

/// One exact allocation of a device. Dropping it returns the memory to the driver's allocator and
/// never waits for the device.
pub struct Page {
    pub bytes: u64,
    /// What the driver stores for the page, such as its handle. Only the driver that made the page reads it.
    pub raw: Box<dyn Any + Send + Sync>,
}

/// `len` bytes of a page, starting at `offset`. The `slack` bytes that follow are padding of the same
/// buffer: they may be overwritten and are never read.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    pub page: &'a Page,
    pub offset: u64,
    pub len: u64,
    pub slack: u64,
}

/// Limits that the heap checks before it calls the driver.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest single allocation in bytes.
    pub max_page: u64,
    /// The alignment of the offsets at which a kernel may bind a part of a page.
    pub alignment: u64,
}

/// The largest workgroup that a device runs.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    pub threads: u32,
    pub shared_bytes: u64,
}

/// A read whose copy is already queued; later writes do not change the bytes it returns.
pub trait PendingRead: Send {
    /// Waits for the bytes and copies those from `skip` on into `out`; returns `Error::Busy` after
    /// `patience`.
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        patience: Option<Duration>,
    ) -> Result<()>;
}

/// A buffer as a kernel argument. `region` is `None` for a buffer without elements.
pub struct Argument<'a> {
    pub region: Option<Region<'a>>,
    pub dtype: DType,
    pub count: u64,
}

/// One kernel launch. `invocations` is the global size, or the number of groups for a program with
/// groups. Each scalar holds the bits of its element type.
pub struct Run<'a> {
    pub program: &'a Arc<Program>,
    pub arguments: Vec<Argument<'a>>,
    pub scalars: &'a [u64],
    pub invocations: u64,
}

/// The product of two stacks of matrices, `rows` by `inner` and `inner` by `columns`, in a stack without gaps. The caller
/// has checked that every element of the operands is inside their regions, and that no length is zero.
pub struct Product<'a> {
    pub left: Matrices<'a>,
    pub right: Matrices<'a>,
    pub out: Region<'a>,
    pub dtype: DType,
    /// The lengths of the axes of the stacks.
    pub batch: &'a [u64],
    pub rows: u64,
    pub inner: u64,
    pub columns: u64,
}

/// An operand of a product, whose first element is the first one of the region.
pub struct Matrices<'a> {
    pub region: Region<'a>,
    /// In elements: of the axes of the stack, then from row to row and from column to column, of which one is 1.
    pub strides: &'a [u64],
}

/// The time that the kernels of a device took, and the clock that measured it.
pub struct Timing {
    pub passed: Duration,
    pub clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Device,
    Host,
}

/// Called with the number of bytes of a transfer that are done, on any thread. It must not block.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A device as core sees it. Every operation that takes a [`Region`] is queued in the order of the
/// calls; a region is never empty and always lies inside its page.
pub trait Driver: Send + Sync {
    fn limits(&self) -> Limits;
    /// Allocates at least `bytes` of memory with undefined content. A failure is returned by this call,
    /// not by a later one.
    fn alloc(&self, bytes: u64) -> Result<Page>;
    /// Gives each byte of a page a defined value. Must be called before blocks of different owners are
    /// placed on the page.
    fn share(&self, page: &Page) -> Result<()>;
    fn write(&self, dst: Region<'_>, data: &[u8], progress: Option<&Progress>) -> Result<()>;
    /// As `write`, to memory that no queued command uses, without calling the runtime or its driver: a
    /// later call sends the bytes. Returns `false` if that is not possible now.
    fn defer_write(&self, dst: Region<'_>, data: &[u8]) -> bool;
    fn read(&self, src: Region<'_>, progress: Option<&Progress>) -> Result<Box<dyn PendingRead>>;
    /// The regions have the same length and share no byte.
    fn copy(&self, src: Region<'_>, dst: Region<'_>) -> Result<()>;
    /// Fills `dst` with the lowest `size` bytes of `pattern`; `dst` starts at a multiple of `size`.
    fn fill(&self, dst: Region<'_>, pattern: u64, size: u64) -> Result<()>;
    /// Writes 0, 1, 2, ... as `dtype`.
    fn iota(&self, dst: Region<'_>, dtype: DType) -> Result<()>;
    fn convert(&self, src: Region<'_>, from: DType, dst: Region<'_>, to: DType) -> Result<()>;
    /// Runs kernels one after the other. The caller has checked types, counts, devices and overlaps.
    /// Compiled kernels are only submitted; a failure that is detected later makes the device lost.
    fn launch(&self, runs: &[Run<'_>]) -> Result<()>;
    /// As `launch`, without blocking: returns `false` if it would block.
    fn try_launch(&self, run: &Run<'_>) -> Result<bool>;
    /// Compiles a kernel before it is launched.
    fn compile(&self, program: &Arc<Program>) -> Result<()>;
    fn is_compiled(&self, program: &Arc<Program>) -> bool;
    /// Returns `false` if the driver has no kernel for this product.
    fn matmul(&self, product: &Product<'_>) -> Result<bool>;
    /// Runs a WGSL source with `groups` workgroups per axis; no region overlaps one that is written.
    fn run_source(&self, source: &Source, buffers: &[Region<'_>], groups: [u32; 3]) -> Result<()>;
    fn group_limits(&self) -> GroupLimits;
    /// Whether the device supports this atomic operation on `dtype`.
    fn supports_atomic(&self, op: Atomic, dtype: DType) -> bool;
    /// Whether the device has operations on planes.
    fn supports_planes(&self) -> bool;
    /// Whether kernels on this device can calculate with `dtype`.
    fn supports_compute(&self, dtype: DType) -> bool;
    /// Whether `convert` and `iota` support `dtype` on this device.
    fn supports_convert(&self, dtype: DType) -> bool;
    /// Starts a timing and returns its number, for `stop_timing`.
    fn start_timing(&self) -> Result<u64>;
    /// The time from the first kernel since `start_timing` to the last one.
    fn stop_timing(&self, number: u64) -> Result<Timing>;
    /// Waits until all queued work is done.
    fn sync(&self) -> Result<()>;
    /// Bytes that the runtime holds for this device, used or not, including staging memory.
    fn reserved(&self) -> Result<u64>;
    /// Returns unused pages to the driver.
    fn release_pages(&self) -> Result<()>;
    /// As `release_pages`, after the queued work is done; also frees idle staging memory.
    fn trim(&self) -> Result<()>;
    /// The device address of a region, for other libraries.
    fn pointer(&self, region: Region<'_>) -> Result<u64>;
    /// Copies bytes from a device address, which may be of other libraries, and waits for the end.
    fn copy_from_pointer(&self, address: u64, dst: Region<'_>) -> Result<()>;
    fn is_lost(&self) -> bool;
    /// Marks the device as lost, as if its driver had reported it.
    fn lose(&self);
}
