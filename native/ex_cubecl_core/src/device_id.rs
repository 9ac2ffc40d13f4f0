//! The identity of a device.

use std::fmt;

/// Which kind of driver a device is reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    Vulkan,
    Metal,
    Dx12,
    Cuda,
}

impl Runtime {
    pub const ALL: [Runtime; 4] = [
        Runtime::Vulkan,
        Runtime::Metal,
        Runtime::Dx12,
        Runtime::Cuda,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Runtime::Vulkan => "vulkan",
            Runtime::Metal => "metal",
            Runtime::Dx12 => "dx12",
            Runtime::Cuda => "cuda",
        }
    }
}

/// The short name of a device: its runtime and its index in that runtime's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId {
    pub runtime: Runtime,
    pub index: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.runtime.name(), self.index)
    }
}
