//! Runs WGSL sources on buffers whose bound range ends at their last byte.

use ex_cubecl_core::driver::{Driver, Page, Region};
use ex_cubecl_core::error::Result;
use ex_cubecl_core::program::source::Source;

use crate::cube::{Backend, Cube, WINDOW_ALIGNMENT};

impl<B: Backend> Cube<B> {
    /// A buffer that cannot be bound exactly up to its last byte is replaced by a copy for this
    /// run.
    pub fn run_bound(
        &self,
        source: &Source,
        buffers: &[Region<'_>],
        groups: [u32; 3],
    ) -> Result<()> {
        let written = |page: &Page| {
            let mut all = buffers.iter().zip(&source.interface.writes);
            all.any(|(region, writes)| *writes && std::ptr::eq(region.page, page))
        };
        let copies = buffers
            .iter()
            .zip(&source.interface.writes)
            .map(|(region, writes)| {
                let starts = region.offset.is_multiple_of(WINDOW_ALIGNMENT);
                let fits = starts && region.len.is_multiple_of(4);
                // wgpu allows a page to be either read or written in a launch, not both.
                if fits && (*writes || !written(region.page)) {
                    Ok(None)
                } else {
                    self.alloc(region.len).map(Some)
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let pairs = || buffers.iter().zip(&copies);
        let bound: Vec<_> = pairs()
            .map(|(region, copy)| match copy {
                None => *region,
                Some(page) => Region {
                    page,
                    offset: 0,
                    len: region.len.next_multiple_of(4),
                    slack: 0,
                },
            })
            .collect();
        for ((region, copy), bound) in pairs().zip(&bound) {
            if copy.is_some() {
                // The source can also access the padding after the last byte.
                self.fill(*bound, 0, 1)?;
                let len = region.len;
                self.copy(*region, Region { len, ..*bound })?;
            }
        }
        self.entry(|| {
            self.timings.before_kernel();
            B::run_source(self, source, &bound, groups)?;
            self.timings.after_kernels();
            Ok(())
        })?;
        for (((region, copy), bound), writes) in pairs().zip(&bound).zip(&source.interface.writes) {
            if copy.is_some() && *writes {
                let len = region.len;
                self.copy(Region { len, ..*bound }, *region)?;
            }
        }
        Ok(())
    }
}
