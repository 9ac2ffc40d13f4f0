//! Where kernels are launched.

use cubecl::client::ComputeClient;
use cubecl::device_handle::DeviceHandle;
use cubecl::stream_id::StreamId;

/// The one stream of every call: CubeCL 0.10 reads freed memory when two streams share buffers.
pub const STREAM: StreamId = StreamId { value: 0 };

/// The client and the server that kernels are launched on.
pub struct Target<R: cubecl::Runtime> {
    pub client: ComputeClient<R>,
    pub server: DeviceHandle<R::Server>,
}
