//! Kernel times by the clock of the device.

use std::sync::Arc;
use std::time::Duration;

use ex_cubecl_core::error::Result;
use wgpu::Features;

use crate::cube::timing::Timestamps;
use crate::wgpu::gpu::Gpu;
use crate::wgpu::staging::Staging;

/// Two readings of the device's clock.
pub(super) struct Readings {
    gpu: Arc<Gpu>,
    set: wgpu::QuerySet,
    ticks: wgpu::Buffer,
}

impl Readings {
    /// `None` if the device has no clock that commands can read.
    pub fn new(gpu: &Arc<Gpu>) -> Option<Self> {
        let wanted = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        if !gpu.device.features().contains(wanted) {
            return None;
        }
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let ticks = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Some(Readings {
            gpu: gpu.clone(),
            set,
            ticks,
        })
    }

    fn read_clock(&self, at: u32) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.write_timestamp(&self.set, at);
        self.gpu.submit(Some(encoder.finish()));
    }
}

impl Timestamps for Readings {
    fn begin(&self) {
        self.read_clock(0);
    }

    fn end(&self) {
        self.read_clock(1);
    }

    fn passed(&self) -> Result<Duration> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.resolve_query_set(&self.set, 0..2, &self.ticks, 0);
        self.gpu.submit(Some(encoder.finish()));
        let reading = Staging::default().download(&self.gpu, &self.ticks, 0, 16, None)?;
        let mut bytes = [0; 16];
        reading.wait_into(0, &mut bytes, None)?;
        let ticks: Vec<u64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_ne_bytes(*bytes))
            .collect();
        let passed = match ticks[..] {
            [began, ended] => ended.saturating_sub(began),
            _ => 0,
        };
        Ok(Duration::from_nanos(
            (passed as f64 * self.gpu.tick()) as u64,
        ))
    }
}
