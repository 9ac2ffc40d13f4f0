//! Everything that knows CubeCL, wgpu and CUDA: finds and opens devices, implements core's `Driver` for them, and
//! lowers kernel programs to CubeCL's IR. This module is the only one that depends on which runtimes are built in.

// CubeCL's launches and the drivers' C interfaces need unsafe code; each block states why it is
// sound.
#![allow(unsafe_code)]

mod cube;
#[cfg(feature = "cuda")]
mod cuda;
mod guard;
mod hidden;
mod kernels;
mod lower;
mod lru;
#[cfg(all(test, feature = "wgpu"))]
mod portable_tests;
#[cfg(feature = "wgpu")]
mod wgpu;

use ex_cubecl_core::device_id::Runtime;
use ex_cubecl_core::driver::{Driver, Info, Opener};
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::source::Source;
use ex_cubecl_core::registry;

use crate::hidden::is_hidden;

/// The runtimes of this build.
struct Runtimes;

/// Makes the runtimes of this build those that core finds and opens devices through.
pub fn install() {
    registry::set_opener(&Runtimes);
}

impl Opener for Runtimes {
    fn enumerate(&self) -> Vec<Info> {
        guard::install_hook();
        let mut found = Vec::new();
        #[cfg(feature = "wgpu")]
        found.extend(guard::caught(|| Ok(wgpu::adapters::enumerate())).unwrap_or_default());
        #[cfg(feature = "cuda")]
        found.extend(guard::caught(|| Ok(cuda::enumerate())).unwrap_or_default());
        for info in &mut found {
            info.dtypes.retain(|dtype| !is_hidden(*dtype));
        }
        found
    }

    fn open(&self, info: &Info) -> Result<Box<dyn Driver>> {
        guard::install_hook();
        guard::caught(|| match info.id.runtime {
            #[cfg(feature = "cuda")]
            Runtime::Cuda => cuda::open(info),
            #[cfg(feature = "wgpu")]
            Runtime::Vulkan | Runtime::Metal | Runtime::Dx12 => wgpu::backend::open(info),
            #[allow(unreachable_patterns)]
            _ => Err(Error::Unsupported {
                operation: "open: this build has no such runtime",
                device: info.id,
            }),
        })
    }

    /// The reasons of all runtimes, each in its own words.
    fn missing(&self) -> String {
        let reasons = [
            #[cfg(feature = "wgpu")]
            wgpu::adapters::missing(),
            #[cfg(feature = "cuda")]
            cuda::missing(),
        ];
        reasons.join("; ")
    }
}

/// Parses and checks a source in WGSL. It blocks meanwhile, for at most half a minute, whatever the text is.
///
/// The entry point is a compute shader, with the workgroup size `threads` if that is given; its buffers
/// are the bindings 0, 1, 2, ... of bind group 0.
#[cfg(feature = "wgpu")]
pub fn parse_source(text: String, entry: String, threads: Option<[u32; 3]>) -> Result<Source> {
    let interface = guard::caught(|| wgpu::wgsl::parse(&text, &entry))?;
    Source::new(text, entry, threads, interface)
}

#[cfg(not(feature = "wgpu"))]
pub fn parse_source(_: String, _: String, _: Option<[u32; 3]>) -> Result<Source> {
    Err(Error::bad_kernel("this build has no runtime for WGSL"))
}
