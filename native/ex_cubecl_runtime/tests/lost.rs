//! A lost device: calls on its buffers return an error, and its id can be opened again. This test
//! has its own OS process, because other tests could not use the device meanwhile.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{bytes_buffer, contents, pattern, test_device, test_device_id};
use ex_cubecl_core::allocators::shared_pools;
use ex_cubecl_core::registry;
use ex_cubecl_core::{Buffer, DType, Device, DeviceId, Error};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_old_handle_says_so_and_the_device_opens_again() {
    for give_up in [registry::lose, |id| registry::reset(&*registry::open(id)?)] {
        check_giving_up(give_up);
    }
}

fn check_giving_up(give_up: fn(DeviceId) -> ex_cubecl_core::Result<()>) {
    let _alone = ALONE.lock();
    let id = test_device_id();
    let old = test_device();
    let buffer = bytes_buffer(&old, &pattern(1, 10_000));
    let view = buffer.view(10, 20).unwrap();
    let lazy = Buffer::lazy(old.clone(), (DType::U8, 10)).unwrap();
    old.set_limit(Some(1 << 30));
    give_up(id).unwrap();

    let lost = Error::DeviceLost { device: id };
    for handle in [&buffer, &view] {
        assert_eq!(handle.read(0, 1).err(), Some(lost.clone()));
        assert_eq!(handle.write(0, &[1]).err(), Some(lost.clone()));
        assert_eq!(handle.fill(1).err(), Some(lost.clone()));
        assert_eq!(
            handle.convert(handle.like(DType::F32)).err(),
            Some(lost.clone())
        );
        assert_eq!(handle.copy_to(&handle.share()).err(), Some(Error::Overlap));
    }
    assert_eq!(lazy.ensure_allocated(), Err(lost.clone()));
    assert_eq!(old.synchronize(), Err(lost.clone()));
    assert_eq!(old.usage().err(), Some(lost.clone()));

    let new = test_device();
    assert_ne!(new.generation, old.generation);
    let fresh = bytes_buffer(&new, &pattern(2, 10_000));
    assert_eq!(contents(&fresh), pattern(2, 10_000));
    assert_eq!(buffer.copy_to(&fresh).err(), Some(lost));
    assert_eq!(new.usage().unwrap().0.limit, Some(1 << 30));
    let answer = read_before(&new);
    drop((buffer, view, lazy));
    assert_eq!(contents(&fresh), pattern(2, 10_000));
    give_up(id).unwrap();
    assert_eq!(
        answer[..],
        pattern(4, 3 << 20)[..],
        "an answer outlives its device"
    );
}

fn read_before(device: &std::sync::Arc<Device>) -> Vec<u8> {
    let buffer = bytes_buffer(device, &pattern(4, 3 << 20));
    buffer.read(0, buffer.count()).unwrap()
}

#[test]
fn a_device_that_is_lost_under_load_never_panics_its_users() {
    let _alone = ALONE.lock();
    for _ in 0..3 {
        let device = test_device();
        let rounds = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (device, rounds) = (&device, &rounds);
                scope.spawn(move || {
                    for round in 0..1000 {
                        rounds.fetch_add(1, Relaxed);
                        let data = pattern(thread << 32 | round, 100_000);
                        let made = Buffer::from_bytes(device.clone(), DType::U8, &data);
                        match made.and_then(|buffer| Ok(buffer.read(0, 100_000)?.to_vec())) {
                            Ok(bytes) => assert_eq!(bytes, data),
                            Err(Error::DeviceLost { .. }) => return,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                });
            }
            while rounds.load(Relaxed) < 20 {
                std::thread::yield_now();
            }
            registry::lose(test_device_id()).unwrap();
        });
    }
    assert_eq!(
        contents(&bytes_buffer(&test_device(), &[1, 2, 3])),
        [1, 2, 3]
    );
}

fn logical(index: u32) -> DeviceId {
    let adapter = test_device_id();
    let id = DeviceId { index, ..adapter };
    registry::open_logical(adapter, id).unwrap();
    id
}

/// The number of threads of CubeCL's devices, found by their names. While other threads end, a listing may leave
/// some out, so that the largest of several is right.
#[cfg(target_os = "linux")]
fn device_threads() -> usize {
    (0..20).map(|_| listed_device_threads()).max().unwrap()
}

#[cfg(target_os = "linux")]
fn listed_device_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    let names = tasks.filter_map(|task| name(task.ok()?).ok());
    names.filter(|name| name.starts_with("DSD-")).count()
}

#[test]
fn a_logical_device_is_removed_unless_something_lives_on_it() {
    let _alone = ALONE.lock();
    let id = logical(3001);
    let device = registry::open(id).unwrap();
    let buffer = bytes_buffer(&device, &[1, 2, 3]);
    let lazy = Buffer::lazy(device.clone(), (DType::U8, 10)).unwrap();
    let in_use = Error::DeviceInUse {
        device: id,
        live_buffers: 1,
    };
    assert_eq!(registry::remove(id), Err(in_use));
    assert_eq!(contents(&buffer), [1, 2, 3]);
    drop(buffer);
    // Idle buffers of a lost device cannot be reused.
    let pool = shared_pools::find_or_create(&device, &(DType::U8, 1000).into(), 2).unwrap();
    let kept = pool.check_out(&Default::default()).unwrap();
    shared_pools::check_in(&kept, true).unwrap();
    let forgotten = std::sync::Arc::downgrade(&pool);
    drop((pool, kept));
    assert_eq!(registry::remove(id), Ok(()));
    assert!(
        forgotten.upgrade().is_none(),
        "the pools of a removed device go with it"
    );
    let lost = Error::DeviceLost { device: id };
    assert_eq!(lazy.fill(1), Err(lost));
    assert!(matches!(
        registry::open(id),
        Err(Error::UnknownDevice { .. })
    ));
    assert!(matches!(
        registry::remove(id),
        Err(Error::UnknownDevice { .. })
    ));
    let adapter = test_device_id();
    assert_eq!(
        registry::remove(adapter),
        Err(Error::NotLogical { device: adapter })
    );
    // A logical device that was never opened, and one that was reset.
    assert_eq!(registry::remove(logical(3002)), Ok(()));
    let reset = logical(3003);
    let old = bytes_buffer(&registry::open(reset).unwrap(), &[1]);
    registry::reset(&registry::open(reset).unwrap()).unwrap();
    assert_eq!(registry::remove(reset), Ok(()));
    drop(old);
}

#[test]
#[cfg(target_os = "linux")]
fn devices_that_come_and_go_share_their_threads() {
    let _alone = ALONE.lock();
    let cycle = |index: u32| {
        let id = logical(index);
        let device = registry::open(id).unwrap();
        let buffer = bytes_buffer(&device, &pattern(index.into(), 100_000));
        assert_eq!(contents(&buffer), pattern(index.into(), 100_000));
        // The error of a reused driver names the device that uses it now.
        device.set_limit(Some(1));
        let refused = Buffer::from_bytes(device, DType::U8, &[0; 2]).err();
        assert!(matches!(refused, Some(Error::LimitExceeded { device, .. }) if device == id));
        drop(buffer);
        registry::remove(id).unwrap();
    };
    cycle(4000);
    test_device();
    let before = device_threads();
    assert!(before > 0);
    (4001..4100).for_each(cycle);
    for _ in 0..100 {
        let device = test_device();
        bytes_buffer(&device, &[1]);
        registry::reset(&registry::open(test_device_id()).unwrap()).unwrap();
    }
    // A thread that another test left may have ended meanwhile.
    let now = device_threads();
    assert!(now <= before, "{now} threads, {before} before");
}

#[test]
fn there_are_so_many_logical_devices_at_most() {
    let _alone = ALONE.lock();
    let adapter = test_device_id();
    let ids = (5000..).map(|index| DeviceId { index, ..adapter });
    let mut added = Vec::new();
    let refused = ids
        .map(|id| (id, registry::open_logical(adapter, id)))
        .find_map(|(id, result)| {
            added.push(id);
            result.err()
        });
    added.pop();
    assert_eq!(refused, Some(Error::TooManyDevices { max: 64 }));
    assert!(added.len() <= 64);
    for id in added {
        registry::remove(id).unwrap();
    }
    registry::remove(logical(5000)).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_that_was_lost_leaves_one_thread() {
    const CYCLES: usize = 12;
    let _alone = ALONE.lock();
    let id = logical(3100);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let reopen = || {
        registry::lose(id).unwrap();
        let device = registry::open(id).unwrap();
        assert_eq!(contents(&bytes_buffer(&device, &[1, 2])), [1, 2]);
    };
    reopen();
    let before = threads();
    (0..CYCLES).for_each(|_| reopen());
    // The drivers' threads end shortly after the drivers were dropped.
    let patience = Instant::now() + Duration::from_secs(60);
    while threads() > before + CYCLES && Instant::now() < patience {
        std::thread::yield_now();
    }
    assert!(threads() <= before + CYCLES);
    registry::remove(id).unwrap();
}

/// Run by hand: measures the cost of losing and reopening a device.
#[test]
#[ignore = "prints what reopening costs"]
#[cfg(target_os = "linux")]
fn what_reopening_costs() {
    let _alone = ALONE.lock();
    let status = |field: &str| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let cycles: u32 = std::env::var("CYCLES").map_or(100, |cycles| cycles.parse().unwrap());
    for cycle in 0..=cycles {
        let device = test_device();
        bytes_buffer(&device, &pattern(1, 100_000));
        drop(device);
        if cycle % (cycles / 10) == 0 {
            println!(
                "{cycle} {} kB, {} threads",
                status("VmRSS"),
                status("Threads")
            );
        }
        registry::lose(test_device_id()).unwrap();
    }
}
