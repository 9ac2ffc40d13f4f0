//! Many buffers, many threads: nothing is lost, mixed up or leaked. These tests read the meter of
//! the device, so they run one at a time.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{bytes_buffer, contents, pattern, test_device};
use ex_cubecl_core::device::Device;
use ex_cubecl_core::{Buffer, DType, Error};
use parking_lot::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

fn live(device: &Device) -> (u64, u64) {
    let (usage, _) = device.usage().unwrap();
    (usage.live_bytes, usage.live_buffers)
}

#[test]
fn a_hundred_thousand_small_buffers_keep_their_bytes() {
    let _alone = alone();
    let device = test_device();
    let before = live(&device);
    let buffers: Vec<Buffer> = (0u32..100_000)
        .map(|index| bytes_buffer(&device, &index.to_ne_bytes()))
        .collect();
    assert_eq!(live(&device), (before.0 + 400_000, before.1 + 100_000));
    for index in (0..100_000).step_by(997) {
        assert_eq!(contents(&buffers[index]), (index as u32).to_ne_bytes());
    }
    drop(buffers);
    assert_eq!(live(&device), before);
}

#[test]
fn what_is_dropped_goes_back_to_the_driver_by_a_trim() {
    let _alone = alone();
    let device = test_device();
    device.trim().unwrap();
    let (_, before) = device.usage().unwrap();
    let buffers: Vec<Buffer> = (0..16)
        .map(|_| bytes_buffer(&device, &pattern(1, 4 << 20)))
        .collect();
    assert!(device.usage().unwrap().1 >= before + (64 << 20));
    drop(buffers);
    assert!(device.trim().unwrap() >= 64 << 20);
    assert!(device.usage().unwrap().1 <= before);
}

#[test]
fn memory_is_reused_rather_than_taken_anew() {
    let _alone = alone();
    let device = test_device();
    device.trim().unwrap();
    for _ in 0..200 {
        drop(bytes_buffer(&device, &[1; 8 << 20]));
    }
    assert!(device.usage().unwrap().1 < 128 << 20);
}

#[test]
fn threads_always_read_their_own_bytes() {
    let _alone = alone();
    let device = test_device();
    let before = live(&device);
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let device = &device;
            scope.spawn(move || {
                for round in 0..200 {
                    let len = 1 + ((thread * 7919 + round * 104_729) % 300_000) as usize;
                    let data = pattern(thread << 32 | round, len);
                    assert_eq!(contents(&bytes_buffer(device, &data)), data);
                }
            });
        }
    });
    assert_eq!(live(&device), before);
}

#[test]
fn a_read_never_sees_half_of_a_write() {
    let _alone = alone();
    let device = test_device();
    let len = 9 << 20;
    let buffer = bytes_buffer(&device, &vec![0; len]);
    let uneven = buffer.view(1, len as u64 - 2).unwrap();
    std::thread::scope(|scope| {
        for value in 1..4u8 {
            let uneven = &uneven;
            scope.spawn(move || {
                for _ in 0..8 {
                    uneven.write(0, &vec![value; len - 2]).unwrap();
                }
            });
        }
        for _ in 0..12 {
            let bytes = contents(&uneven);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn write");
        }
    });
}

#[test]
fn copies_in_opposite_directions_do_not_wait_for_each_other() {
    let _alone = alone();
    let device = test_device();
    let (a, b) = (
        bytes_buffer(&device, &[1; 4096]),
        bytes_buffer(&device, &[2; 4096]),
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..300).for_each(|_| a.copy_to(&b).unwrap()));
            scope.spawn(|| (0..300).for_each(|_| b.copy_to(&a).unwrap()));
        }
    });
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn past_the_limit_nothing_is_taken_and_nothing_is_changed() {
    let _alone = alone();
    let device = test_device();
    let kept = bytes_buffer(&device, &pattern(3, 1 << 20));
    let (used, _) = live(&device);
    device.set_limit(Some(used + 1000));
    let refused = Buffer::from_bytes(device.clone(), DType::U8, &[0; 1001]).err();
    assert!(matches!(
        refused,
        Some(Error::LimitExceeded {
            requested: 1001,
            ..
        })
    ));
    let small = Buffer::from_bytes(device.clone(), DType::U8, &[5; 1000]).unwrap();
    device.set_limit(None);
    assert_eq!(contents(&small), [5; 1000]);
    assert_eq!(contents(&kept), pattern(3, 1 << 20));
}
