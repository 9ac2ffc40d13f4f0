//! The operations that differ between runtimes.

use std::sync::Arc;

use cubecl::future::block_on;
use cubecl::server::Handle;

use super::cube::Cube;
use super::room::Room;
use super::timing::Stamps;
use crate::driver::{Page, PendingRead, Progress, Region};
use crate::error::{Error, Result};
use crate::kernel::source::Source;

/// The operations that differ between runtimes. The default bodies work on each of them.
pub trait Backend: Send + Sync + Sized + 'static {
    type Runtime: cubecl::Runtime;

    /// Whether each opening creates a CubeCL device of its own, which ends with its `Driver`.
    const ENDS: bool = false;

    /// Limit of the programs that the runtime compiles, where CubeCL frees none of them: CUDA
    /// modules stay loaded.
    const MAX_PROGRAMS: Option<usize> = None;

    /// The data to store with a new page, beside its handle.
    fn adopt(_cube: &Cube<Self>, _handle: &Handle) -> Result<Box<dyn std::any::Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    /// See [`crate::driver::Driver::share`].
    fn share(_cube: &Cube<Self>, _page: &Page) -> Result<()> {
        Ok(())
    }

    /// Returns an error if the device is known to lack memory for the request. The result is kept
    /// until the memory has been allocated.
    fn check_room(&self, _bytes: u64) -> Result<Option<Room>> {
        Ok(None)
    }

    /// Offset and length are multiples of four. Data written in one piece reports no progress.
    fn write(
        cube: &Cube<Self>,
        dst: Region<'_>,
        data: &[u8],
        _progress: Option<&Progress>,
    ) -> Result<()> {
        cube.write_through_server(dst, data)
    }

    /// As `write`, cheaper, for few bytes; `false` if the runtime has no such way.
    fn write_small(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> Result<bool> {
        Ok(false)
    }

    /// Keeps a write on the host until `deferred_writes` is called. It takes no lock that is held during
    /// a call of the runtime or the driver; `false` if it cannot be kept.
    fn defer_write(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> bool {
        false
    }

    /// Returns a function that sends the deferred writes.
    fn deferred_writes(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| ())
    }

    /// Offset and length are multiples of four.
    fn read(
        cube: &Cube<Self>,
        src: Region<'_>,
        _progress: Option<&Progress>,
    ) -> Result<Box<dyn PendingRead>> {
        cube.read_through_client(src)
    }

    /// Copies if the runtime has a better way than a kernel; otherwise returns `false`.
    fn copy(_cube: &Cube<Self>, _src: Region<'_>, _dst: Region<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Zeroes if the runtime has a better way than a kernel; otherwise returns `false`. Offset and
    /// length are multiples of four.
    fn clear(_cube: &Cube<Self>, _dst: Region<'_>) -> Result<bool> {
        Ok(false)
    }

    fn sync(cube: &Cube<Self>) -> Result<()> {
        cube.awake(|| block_on(cube.client.sync()).map_err(Error::driver))
    }

    /// Runs a source. Regions start at multiples of `WINDOW_ALIGNMENT` and are whole words long.
    fn run_source(
        cube: &Cube<Self>,
        _source: &Source,
        _buffers: &[Region<'_>],
        _groups: [u32; 3],
    ) -> Result<()> {
        Err(Error::Unsupported {
            operation: "kernels in WGSL",
            device: cube.id,
        })
    }

    /// Timestamps of the device's clock, if it has one.
    fn stamps(_cube: &Cube<Self>) -> Result<Option<Arc<dyn Stamps>>> {
        Ok(None)
    }

    /// Host memory that the backend keeps for transfers.
    fn staging_bytes(&self) -> u64 {
        0
    }

    fn trim(&self) {}

    fn pointer(&self, _region: Region<'_>) -> Option<u64> {
        None
    }

    fn is_lost(&self) -> bool;

    fn lose(&self);
}
