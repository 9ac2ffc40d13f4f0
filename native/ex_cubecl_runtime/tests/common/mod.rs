//! Helpers of the device tests: the device to test on, and data that differs between buffers.

use std::sync::Arc;

use ex_cubecl_core::device::Device;
use ex_cubecl_core::device_id::{DeviceId, Runtime};
use ex_cubecl_core::registry;
use ex_cubecl_core::{Buffer, DType};

/// The device named by `EX_CUBECL_TEST_DEVICE`, such as `cuda:0`, or the default device.
#[allow(dead_code)] // each test binary uses its own part of this file
pub fn test_device() -> Arc<Device> {
    registry::open(test_device_id()).unwrap()
}

pub fn test_device_id() -> DeviceId {
    ex_cubecl_runtime::install();
    match std::env::var("EX_CUBECL_TEST_DEVICE") {
        Ok(name) => parse(&name),
        Err(_) => registry::default_id().unwrap(),
    }
}

fn parse(name: &str) -> DeviceId {
    let (runtime, index) = name.split_once(':').unwrap();
    let runtime = Runtime::ALL
        .into_iter()
        .find(|known| known.name() == runtime)
        .unwrap();
    let index = index.parse().unwrap();
    DeviceId { runtime, index }
}

/// `len` bytes that depend on `seed` and on their index.
#[allow(dead_code)] // as above
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

#[allow(dead_code)] // each test binary uses its own part of this file
pub fn bytes_buffer(device: &Arc<Device>, data: &[u8]) -> Buffer {
    Buffer::from_bytes(device.clone(), DType::U8, data).unwrap()
}

#[allow(dead_code)] // as above
pub fn contents(buffer: &Buffer) -> Vec<u8> {
    buffer.read(0, buffer.count()).unwrap().to_vec()
}
