//! Where kernels are launched.

use std::sync::Arc;
use std::time::Duration;

use cubecl::client::ComputeClient;
use cubecl::device_handle::DeviceHandle;
use cubecl::stream_id::StreamId;

/// The one stream of every call: CubeCL 0.10 reads freed memory when two streams share buffers.
pub const STREAM: StreamId = StreamId { value: 0 };

/// The time after which a compilation is given up. The longest ones that were seen take some seconds, and minutes on a machine that is
/// busy with other work.
pub const COMPILE_LIMIT: Duration = Duration::from_secs(600);

/// The client and the server that kernels are launched on.
pub struct Target<R: cubecl::Runtime> {
    pub client: ComputeClient<R>,
    pub server: DeviceHandle<R::Server>,
    /// Called if a compilation exceeds its time limit: the device thread may never return from it.
    pub overdue: Arc<dyn Fn() + Send + Sync>,
}
