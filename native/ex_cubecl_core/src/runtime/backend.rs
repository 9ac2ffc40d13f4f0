//! What a runtime has of its own.

use std::sync::Arc;

use cubecl::future::block_on;
use cubecl::server::Handle;

use super::cube::Cube;
use super::room::Room;
use super::timing::Stamps;
use crate::driver::{Page, PendingRead, Progress, Region};
use crate::error::{Error, Result};
use crate::kernel::source::Source;

/// What differs between runtimes. The default bodies work on each of them.
pub trait Backend: Send + Sync + Sized + 'static {
    type Runtime: cubecl::Runtime;

    /// Whether each opening makes a device of CubeCL's of its own, which ends with its driver.
    const ENDS: bool = false;

    /// How many programs it compiles at most, where CubeCL frees none of them: CUDA modules stay loaded.
    const MAX_PROGRAMS: Option<usize> = None;

    /// What to keep of a fresh page beside its handle.
    fn adopt(_cube: &Cube<Self>, _handle: &Handle) -> Result<Box<dyn std::any::Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    /// See [`crate::driver::Driver::share`].
    fn share(_cube: &Cube<Self>, _page: &Page) -> Result<()> {
        Ok(())
    }

    /// Refuses what the device can be known not to have room for. The result is kept until the
    /// memory has been taken.
    fn check_room(&self, _bytes: u64) -> Result<Option<Room>> {
        Ok(None)
    }

    /// Offset and length are multiples of four. What goes in one piece tells of no progress.
    fn write(
        cube: &Cube<Self>,
        dst: Region<'_>,
        data: &[u8],
        _progress: Option<&Progress>,
    ) -> Result<()> {
        cube.write_through_server(dst, data)
    }

    /// As `write` for few bytes, in a way that costs less; `false` where there is none.
    fn write_small(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> Result<bool> {
        Ok(false)
    }

    /// Keeps a write on the host until `deferred_writes` is called. It takes no lock that is held during
    /// a call of the runtime or the driver; `false` if it cannot be kept.
    fn defer_write(_cube: &Cube<Self>, _dst: Region<'_>, _data: &[u8]) -> bool {
        false
    }

    /// Sends the writes that were kept.
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

    /// Copies where the runtime has a better way than a kernel; `false` where it has not.
    fn copy(_cube: &Cube<Self>, _src: Region<'_>, _dst: Region<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Zeroes where the runtime has a better way than a kernel; `false` where it has not. Offset and
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

    /// Readings of the device's clock, if it has one.
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
