//! A lost device: its buffers say so, and the same id opens anew. In a process of its own, since
//! it takes the device away from whoever else would test on it.

#![allow(clippy::unwrap_used, clippy::panic)] // also in what is no test function itself

mod common;

use common::{bytes_buffer, contents, pattern, test_device, test_device_id};
use ex_cubecl_core::{Buffer, DType, DeviceId, Error, device};
use parking_lot::Mutex;

static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_old_handle_says_so_and_the_device_opens_again() {
    for give_up in [device::lose, device::reset] {
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

fn read_before(device: &std::sync::Arc<device::Device>) -> ex_cubecl_core::driver::HostBytes {
    let buffer = bytes_buffer(device, &pattern(4, 3 << 20));
    buffer.read(0, buffer.count()).unwrap()
}

#[test]
fn a_device_that_is_lost_under_load_never_panics_its_users() {
    let _alone = ALONE.lock();
    for _ in 0..3 {
        let device = test_device();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let device = &device;
                scope.spawn(move || {
                    for round in 0..1000 {
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
            std::thread::sleep(std::time::Duration::from_millis(30));
            device::lose(test_device_id()).unwrap();
        });
    }
    assert_eq!(
        contents(&bytes_buffer(&test_device(), &[1, 2, 3])),
        [1, 2, 3]
    );
}
