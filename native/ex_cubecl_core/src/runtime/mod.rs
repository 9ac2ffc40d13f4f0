//! Finds and opens devices. This is the only module of the crate that depends on which runtimes are
//! built in.

// CubeCL's launches and the drivers' C interfaces need unsafe code; each block states why it is
// sound.
#![allow(unsafe_code)]

mod backend;
mod compiled;
mod compiler_thread;
mod cube;
#[cfg(feature = "cuda")]
mod cuda;
mod emit;
#[cfg(feature = "wgpu")]
mod exit;
#[cfg(feature = "wgpu")]
mod gpu;
mod guard;
mod kernels;
mod matmul;
#[cfg(all(test, feature = "wgpu"))]
mod portable_tests;
mod rest;
mod retire;
#[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
mod room;
mod sources;
#[cfg(feature = "wgpu")]
mod staging;
mod timing;
mod watched;
#[cfg(feature = "wgpu")]
mod wgpu;
#[cfg(feature = "wgpu")]
mod wgsl;

pub use compiler_thread::on_large_stack;
pub use guard::caught;

use crate::device::{Info, Runtime};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernel::source::Interface;

/// Every device that could be opened. No device is opened, and a missing driver is not an error.
pub fn enumerate() -> Vec<Info> {
    guard::install_hook();
    let mut found = Vec::new();
    #[cfg(feature = "wgpu")]
    found.extend(guard::caught(|| Ok(wgpu::enumerate())).unwrap_or_default());
    #[cfg(feature = "cuda")]
    found.extend(guard::caught(|| Ok(cuda::enumerate())).unwrap_or_default());
    found
}

pub fn open(info: &Info) -> Result<Box<dyn Driver>> {
    guard::install_hook();
    guard::caught(|| match info.id.runtime {
        #[cfg(feature = "cuda")]
        Runtime::Cuda => cuda::open(info),
        #[cfg(feature = "wgpu")]
        Runtime::Vulkan | Runtime::Metal | Runtime::Dx12 => wgpu::open(info),
        #[allow(unreachable_patterns)]
        _ => Err(Error::Unsupported {
            operation: "open: this build has no such runtime",
            device: info.id,
        }),
    })
}

/// Parses a source in WGSL and returns its interface.
#[cfg(feature = "wgpu")]
pub fn parse_source(text: &str, entry: &str) -> Result<Interface> {
    guard::caught(|| wgsl::parse(text, entry))
}

#[cfg(not(feature = "wgpu"))]
pub fn parse_source(_: &str, _: &str) -> Result<Interface> {
    let reason = "this build has no runtime for WGSL".into();
    Err(Error::BadKernel { reason })
}

/// Why there may be no device, in the words of each runtime.
pub fn missing() -> String {
    let reasons = [
        #[cfg(feature = "wgpu")]
        wgpu::missing(),
        #[cfg(feature = "cuda")]
        cuda::missing(),
    ];
    reasons.join("; ")
}
