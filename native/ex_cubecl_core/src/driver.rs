//! What the rest of core asks of a device. One object-safe trait, so that nothing above this line
//! knows which runtime it speaks to.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use cubecl::server::Handle;

use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::source::Source;
use crate::kernel::tree::{Atomic, Group, Program};

/// One exact allocation of a device. Dropping it returns the memory to the runtime's pool and
/// never waits for the device.
pub struct Page {
    pub(crate) handle: Handle,
    pub(crate) bytes: u64,
    /// What a runtime keeps beside CubeCL's handle, such as the `wgpu::Buffer`.
    pub(crate) raw: Box<dyn Any + Send + Sync>,
}

/// `len` bytes of a page from `offset` on. `slack` more bytes behind them belong to the same
/// buffer's padding: they may be overwritten, and nobody ever reads them.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    pub page: &'a Page,
    pub offset: u64,
    pub len: u64,
    pub slack: u64,
}

/// Bounds that the heap respects before the driver sees a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest single allocation in bytes.
    pub max_page: u64,
    /// Offsets at which a kernel may bind a part of a page.
    pub alignment: u64,
}

/// A read whose copy is already queued; later writes to the device do not show.
pub trait PendingRead: Send {
    /// Waits for the bytes and copies those from `skip` on into `out`; `Error::Busy` once `patience`
    /// is over.
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        patience: Option<Duration>,
    ) -> Result<()>;
}

/// A buffer as a kernel gets it; one without elements has no region.
pub struct Argument<'a> {
    pub region: Option<Region<'a>>,
    pub dtype: DType,
    pub count: u64,
}

/// A kernel over so many positions. Numbers are the bits of their elements.
pub struct Run<'a> {
    pub program: &'a Arc<Program>,
    pub arguments: Vec<Argument<'a>>,
    pub scalars: &'a [u64],
    pub positions: u64,
}

/// How long the kernels of a device took, by whose clock.
pub struct Timing {
    pub passed: Duration,
    pub clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Device,
    Host,
}

/// Told how many bytes of a transfer are through, by whichever thread learns of it. It must not
/// block.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A device as core sees it. Everything that takes a [`Region`] is queued in the order of the
/// calls; a region is never empty and always inside its page.
pub trait Driver: Send + Sync {
    fn limits(&self) -> Limits;
    /// At least `bytes` of memory whose content is not defined, or an error now, not later.
    fn alloc(&self, bytes: u64) -> Result<Page>;
    /// To be called before blocks of different owners lie on a page: each byte of it is defined then.
    fn share(&self, page: &Page) -> Result<()>;
    fn write(&self, dst: Region<'_>, data: &[u8], progress: Option<&Progress>) -> Result<()>;
    /// As `write` to memory that no queued command uses, without calling the runtime or its driver: a
    /// later call sends the bytes. `false` if that is not possible now.
    fn defer_write(&self, dst: Region<'_>, data: &[u8]) -> bool;
    fn read(&self, src: Region<'_>, progress: Option<&Progress>) -> Result<Box<dyn PendingRead>>;
    /// The regions have the same length and share no byte.
    fn copy(&self, src: Region<'_>, dst: Region<'_>) -> Result<()>;
    /// Repeats the lowest `size` bytes of `pattern`; `dst` starts at a multiple of `size`.
    fn fill(&self, dst: Region<'_>, pattern: u64, size: u64) -> Result<()>;
    /// 0, 1, 2, ... as `dtype`.
    fn iota(&self, dst: Region<'_>, dtype: DType) -> Result<()>;
    fn convert(&self, src: Region<'_>, from: DType, dst: Region<'_>, to: DType) -> Result<()>;
    /// Runs kernels one after the other. Types, counts and places were checked.
    /// Those that are compiled are only handed over; a failure that shows later loses the device.
    fn launch(&self, runs: &[Run<'_>]) -> Result<()>;
    /// As `launch` where that does not wait; `false` where it would have to.
    fn launch_now(&self, run: &Run<'_>) -> Result<bool>;
    /// Compiles a kernel before it is launched.
    fn compile(&self, program: &Arc<Program>) -> Result<()>;
    fn is_compiled(&self, program: &Arc<Program>) -> bool;
    /// The product of two matrices of `f32`, of so many rows, inner elements and columns; `false` where
    /// there is no way for these.
    fn matmul(
        &self,
        left: Region<'_>,
        right: Region<'_>,
        out: Region<'_>,
        lengths: [u64; 3],
    ) -> Result<bool>;
    /// Runs a source over groups; no region overlaps one that is written.
    fn run_source(&self, source: &Source, buffers: &[Region<'_>], groups: [u32; 3]) -> Result<()>;
    /// What there is not for a group of threads, in words.
    fn check_group(&self, group: &Group) -> std::result::Result<(), String>;
    /// Whether elements of this type can be changed in one piece here.
    fn changes(&self, op: Atomic, dtype: DType) -> bool;
    /// Whether kernels can calculate with this type here.
    fn calculates(&self, dtype: DType) -> bool;
    /// Whether `convert` and `iota` can work on this type here.
    fn computes(&self, dtype: DType) -> bool;
    /// The number of a timing, for `stop_timing`.
    fn start_timing(&self) -> Result<u64>;
    /// From the first kernel since then to the last.
    fn stop_timing(&self, number: u64) -> Result<Timing>;
    /// Waits until everything queued is done.
    fn sync(&self) -> Result<()>;
    /// Bytes that the runtime holds for us, used or not, staging included.
    fn reserved(&self) -> Result<u64>;
    /// Returns pages that nobody holds to the driver.
    fn release_pages(&self) -> Result<()>;
    /// As `release_pages`, once the device has done its work, and lets go of idle staging memory.
    fn trim(&self) -> Result<()>;
    /// The address of a region for other libraries.
    fn pointer(&self, region: Region<'_>) -> Result<u64>;
    fn is_lost(&self) -> bool;
    /// From now on the device counts as lost, as if its driver had said so.
    fn lose(&self);
}
