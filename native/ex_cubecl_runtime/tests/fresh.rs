//! Unwritten memory next to memory that is being written.
//!
//! wgpu zeroes memory before its first use, with a command before the one that may read it. A write
//! that is in flight to memory that such a command zeroes must not be lost.

#![allow(clippy::unwrap_used)] // also in helpers that are not test functions

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use common::{contents, pattern, test_device};
use ex_cubecl_core::allocators::arena::{Arena, Growth};
use ex_cubecl_core::{Buffer, DType, Device, Spec};

const ODD: u64 = 777;

/// Calls `write` many times while copies of odd lengths are made elsewhere on the page. These copies use
/// a kernel that accesses all bytes between their ends.
fn beside_copies(
    from: &Buffer,
    to: impl Fn() -> Option<Buffer> + Sync,
    write: impl Fn(u64) -> Option<(Buffer, Vec<u8>)>,
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Relaxed)
                    && let Some(target) = to()
                {
                    from.copy_to(&target).unwrap();
                }
            });
        }
        let live: Vec<_> = (0..600).map_while(&write).collect();
        stop.store(true, Relaxed);
        for (at, (buffer, data)) in live.iter().enumerate() {
            assert_eq!(&contents(buffer), data, "buffer {at}");
        }
    });
}

fn written(buffer: Buffer, seed: u64) -> (Buffer, Vec<u8>) {
    let data = pattern(seed, buffer.count() as usize);
    buffer.write(0, &data).unwrap();
    (buffer, data)
}

fn small(device: &Arc<Device>, seed: u64) -> (Buffer, Vec<u8>) {
    let spec = Spec::from((DType::U8, 60));
    let data = pattern(seed, 60);
    match Buffer::try_from_bytes(device, spec.clone(), &data) {
        Some(buffer) => (buffer, data),
        None => written(Buffer::lazy(device.clone(), spec).unwrap(), seed),
    }
}

#[test]
fn fresh_neighbours_on_a_slab_are_not_zeroed_over() {
    let device = test_device();
    for round in 0..60 {
        device.trim().unwrap();
        let from = Buffer::from_bytes(device.clone(), DType::U8, &[1; ODD as usize]).unwrap();
        beside_copies(
            &from,
            || Buffer::lazy(device.clone(), (DType::U8, ODD)).ok(),
            |n| Some(small(&device, round * 7919 + n)),
        );
    }
}

#[test]
fn fresh_neighbours_in_an_arena_are_not_zeroed_over() {
    let device = test_device();
    for round in 0..40 {
        device.trim().unwrap();
        let spec = Spec::from((DType::U8, 3 << 20));
        let arena = Arena::new(device.clone(), spec, Growth::Fixed).unwrap();
        let tensor = |bytes| arena.alloc((DType::U8, bytes).into(), true).ok();
        let (from, _) = written(tensor(ODD).unwrap(), round);
        beside_copies(
            &from,
            || tensor(ODD),
            |n| Some(written(tensor(60)?, round * 7919 + n)),
        );
    }
}
