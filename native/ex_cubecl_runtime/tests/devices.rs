//! Several logical devices on one adapter.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use std::sync::Arc;

use common::test_device_id;
use ex_cubecl_core::transfer::copy_across;
use ex_cubecl_core::{Buffer, DType, Device, DeviceId, Error, Result, registry};

/// A logical device of this test on the default adapter.
fn logical(index: u32) -> Arc<Device> {
    let adapter = test_device_id();
    let id = DeviceId { index, ..adapter };
    registry::open_logical(adapter, id).unwrap();
    registry::open(id).unwrap()
}

fn copied(source: Buffer, target: Buffer) -> Result<()> {
    let (sender, outcome) = std::sync::mpsc::channel();
    let done = move |outcome: Result<Box<Buffer>>| sender.send(outcome.map(|_| ())).unwrap();
    copy_across(Box::new(source), Box::new(target), None, done)?;
    outcome.recv().unwrap()
}

#[test]
fn copies_go_from_device_to_device() {
    let (one, other) = (logical(7001), logical(7002));
    let data: Vec<u8> = (0..3_000_001u32)
        .map(|at| (at * 31 + at / 7) as u8)
        .collect();
    let source = Buffer::from_bytes(one.clone(), DType::U8, &data).unwrap();
    let copy = Buffer::lazy(other.clone(), (DType::U8, 3_000_000)).unwrap();
    copied(source.view(1, 3_000_000).unwrap(), copy.share()).unwrap();
    assert_eq!(copy.read(0, copy.count()).unwrap()[..], data[1..]);
    assert_eq!(other.usage().unwrap().0.live_bytes, 3_000_000);
    let part = copy.view(5, 10).unwrap();
    copied(source.view(0, 10).unwrap(), part).unwrap();
    assert_eq!(copy.read(5, 10).unwrap()[..], data[..10]);
}

#[test]
fn a_lost_device_does_not_disturb_another() {
    let (one, other) = (logical(7003), logical(7004));
    let gone = Buffer::from_bytes(one.clone(), DType::U8, &[1; 100]).unwrap();
    let kept = Buffer::from_bytes(other.clone(), DType::U8, &[2; 100]).unwrap();
    one.driver().unwrap().lose();
    let copies = [(&gone, &kept), (&kept, &gone)];
    for (source, target) in copies {
        let outcome = copied(source.share(), target.share());
        assert!(matches!(outcome, Err(Error::DeviceLost { .. })));
    }
    assert_eq!(kept.read(0, 100).unwrap()[..], [2; 100]);
}
