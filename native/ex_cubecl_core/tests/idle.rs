//! An idle device costs nothing. In a process of its own, whose processor time is all its own.

#![allow(clippy::unwrap_used, clippy::panic)] // also in what is no test function itself

mod common;

use common::{bytes_buffer, contents, test_device};
use ex_cubecl_core::DType;
use std::time::Duration;

/// User and system time of this process in clock ticks of a hundredth of a second.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_without_work_takes_under_one_percent_of_a_core() {
    let device = test_device();
    let buffer = bytes_buffer(&device, &[1; 1000]);
    buffer.fill(3).unwrap();
    buffer.convert(buffer.like(DType::U8)).unwrap();
    assert_eq!(contents(&buffer), [3; 1000]);
    std::thread::sleep(Duration::from_millis(500));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(3));
    let used = ticks() - before;
    assert!(used <= 3, "{used} of 300 ticks");
    assert_eq!(contents(&buffer), [3; 1000]);
}
