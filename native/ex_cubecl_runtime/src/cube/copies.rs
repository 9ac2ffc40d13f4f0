//! Copies and writes by kernels, where the backend has no better way.

use ex_cubecl_core::driver::Region;
use ex_cubecl_core::error::Result;

use crate::cube::{Backend, Cube, WINDOW_ALIGNMENT};
use crate::kernels;

impl<B: Backend> Cube<B> {
    pub(super) fn copy_with_kernel(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        let (from, to, len) = (self.window(src)?, self.window(dst)?, src.len);
        self.launch_and_wait(move |client| kernels::copy(client, from, to, len))
    }

    /// Copies within a page through one window: a buffer that a launch writes to must not be bound
    /// twice.
    pub(super) fn copy_in_page(&self, src: Region<'_>, dst: Region<'_>) -> Result<()> {
        let start = src.offset.min(dst.offset);
        let end = (src.offset + src.len).max(dst.offset + dst.len);
        let both = Region {
            page: src.page,
            offset: start / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT,
            len: end - start / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT,
            slack: 0,
        };
        let (from, to) = (src.offset - both.offset, dst.offset - both.offset);
        let (window, len) = (self.window(both)?, src.len);
        self.launch_and_wait(move |client| kernels::copy_within(client, window, from, to, len))
    }

    /// Writes bytes one by one, where they do not fill a word: a copy command writes whole words,
    /// and the other bytes of this word belong to other buffers.
    pub(super) fn write_bytes(&self, dst: Region<'_>, data: &[u8]) -> Result<()> {
        for (at, byte) in data.iter().enumerate() {
            let window = self.window(Region {
                offset: dst.offset + at as u64,
                len: 1,
                ..dst
            })?;
            let byte = u64::from(*byte);
            self.launch_and_wait(move |client| kernels::fill(client, window, 1, byte, 1))?;
        }
        Ok(())
    }
}
