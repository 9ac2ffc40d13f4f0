//! Writes and reads through CubeCL: the default bodies of `Backend`.

use std::time::Duration;

use cubecl::bytes::Bytes;
use cubecl::future::block_on;
use cubecl::server::ComputeServer;
use ex_cubecl_core::driver::{PendingRead, Region};
use ex_cubecl_core::error::{Error, Result};

use crate::cube::{Backend, Cube, Server, flushed, handle_of};
use crate::guard::caught;
use crate::lower::target::STREAM;

impl<B: Backend> Cube<B> {
    pub(super) fn write_through_server(&self, dst: Region<'_>, data: &[u8]) -> Result<()> {
        let handle = handle_of::<B>(dst.page, dst.offset, data.len() as u64)?;
        let descriptor = handle.copy_descriptor([data.len()].into(), [1].into(), 1);
        let bytes = Bytes::from_elems(data.to_vec());
        let target = self.target();
        self.thread.call(move || {
            let write =
                move |server: &mut Server<B>| server.write(vec![(descriptor, bytes)], STREAM);
            target.server.submit(write);
            // CUDA keeps each upload in host memory until a flush.
            flushed(&target.client)
        })
    }

    pub(super) fn read_through_client(&self, src: Region<'_>) -> Result<Box<dyn PendingRead>> {
        let handle = handle_of::<B>(src.page, src.offset, src.len)?;
        let descriptor = handle.copy_descriptor([src.len as usize].into(), [1].into(), 1);
        let server = self.server.clone();
        let reading = self.thread.call(move || {
            let reading =
                server.submit_blocking(move |server| server.read(vec![descriptor], STREAM));
            reading.map_err(|fault| Error::driver(format!("{fault:?}")))
        })?;
        Ok(Box::new(ClientRead(Box::new(move || {
            let mut all = block_on(reading).map_err(Error::driver)?;
            all.pop().ok_or_else(|| Error::driver("an empty answer"))
        }))))
    }
}

/// A read through CubeCL, which has no way to wait for a limited time.
struct ClientRead(Box<dyn FnOnce() -> Result<Bytes> + Send>);

impl PendingRead for ClientRead {
    fn wait_into(
        self: Box<Self>,
        skip: usize,
        out: &mut [u8],
        _patience: Option<Duration>,
    ) -> Result<()> {
        caught(|| {
            let bytes = (self.0)()?;
            let part = bytes.get(skip..skip + out.len());
            out.copy_from_slice(part.ok_or_else(|| Error::driver("a read came back too short"))?);
            Ok(())
        })
    }
}
