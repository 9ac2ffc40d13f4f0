//! An idle device costs nothing. In a process of its own, whose threads are all its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)] // also in what is no test function itself

mod common;

use common::{bytes_buffer, contents, test_device};
use ex_cubecl_core::DType;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often each thread but this one was given a processor, by its id.
fn switches() -> BTreeMap<String, u64> {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_owned();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let others = threads.filter_map(|thread| {
        let thread = thread.ok()?;
        let id = thread.file_name();
        (id != own).then(|| {
            (
                id.to_string_lossy().into_owned(),
                switches_of(&thread.path()),
            )
        })
    });
    others.collect()
}

fn switches_of(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    let counts = lines.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok());
    counts.sum()
}

/// A thread that polls or spins is given a processor again and again, one that waits never is.
#[test]
fn no_thread_wakes_up_while_a_device_has_no_work() {
    let device = test_device();
    let buffer = bytes_buffer(&device, &[1; 1000]);
    buffer.fill(3).unwrap();
    buffer.convert(buffer.like(DType::U8)).unwrap();
    assert_eq!(contents(&buffer), [3; 1000]);
    let mut before = switches();
    // The first ones see threads come to rest.
    let quiet = (0..60).any(|_| {
        std::thread::sleep(Duration::from_secs(1));
        let now = switches();
        std::mem::replace(&mut before, now) == before
    });
    assert!(quiet, "{before:?}");
    assert_eq!(contents(&buffer), [3; 1000]);
}
