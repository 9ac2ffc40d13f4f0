//! Vulkan, Metal and DirectX through wgpu.

pub mod adapters;
pub mod backend;
mod exit;
mod gpu;
mod host_memory;
mod priority;
mod source_bounds;
mod staging;
mod time_limit;
mod timestamps;
pub mod wgsl;
