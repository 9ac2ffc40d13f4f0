//! An idle device uses no CPU time. This test has its own OS process, so that it sees only its own
//! threads.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{bytes_buffer, contents, test_device};
use ex_cubecl_core::DType;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often each thread except this one was scheduled, by thread id.
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

/// A thread that polls or spins is scheduled again and again, a thread that waits is not.
#[test]
fn no_thread_wakes_up_while_a_device_has_no_work() {
    let device = test_device();
    let buffer = bytes_buffer(&device, &[1; 1000]);
    buffer.fill(3).unwrap();
    buffer.convert(buffer.like(DType::U8)).unwrap();
    assert_eq!(contents(&buffer), [3; 1000]);
    let mut before = switches();
    // In the first rounds threads may still finish their work.
    let quiet = (0..60).any(|_| {
        std::thread::sleep(Duration::from_secs(1));
        let now = switches();
        std::mem::replace(&mut before, now) == before
    });
    assert!(quiet, "{before:?}");
    assert_eq!(contents(&buffer), [3; 1000]);
}
