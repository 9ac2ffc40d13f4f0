//! Pools and arenas: memory that is reused by other owners, who must not see its old content.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::{contents, pattern, test_device};
use ex_cubecl_core::allocators::arena::{Arena, Growth};
use ex_cubecl_core::allocators::per_process_arenas::PerProcessArenas;
use ex_cubecl_core::allocators::pool::{self, Pool};
use ex_cubecl_core::allocators::shared_pools;
use ex_cubecl_core::device::Device;
use ex_cubecl_core::{Buffer, DType, Error, Label};
use proptest::prelude::*;

fn bytes_pool(bytes: u64, max: u64) -> Arc<Pool> {
    Pool::new(test_device(), (DType::U8, bytes).into(), max, None).unwrap()
}

fn out(pool: &Arc<Pool>) -> Buffer {
    pool.check_out(&Label::default()).unwrap()
}

fn arena(bytes: u64, growth: Growth) -> Arena {
    Arena::new(test_device(), (DType::U8, bytes).into(), growth).unwrap()
}

fn tensor(arena: &Arena, count: u64) -> Buffer {
    arena.alloc((DType::F32, count).into(), true).unwrap()
}

fn live(device: &Device) -> (u64, u64) {
    let usage = device.usage().unwrap().0;
    (usage.live_bytes, usage.live_buffers)
}

#[test]
fn a_block_is_used_again_and_its_old_content_is_never_read() {
    let pool = bytes_pool(1000, 1);
    let first = out(&pool);
    first.write(0, &pattern(1, 1000)).unwrap();
    let (view, clone) = (first.view(10, 10).unwrap(), first.share());
    pool.check_in(&first, true).unwrap();
    for handle in [&first, &view, &clone] {
        assert_eq!(handle.read(0, 1).err(), Some(Error::Stale));
        assert_eq!(handle.write(0, &[1]).err(), Some(Error::Stale));
        assert_eq!(handle.fill(1).err(), Some(Error::Stale));
        assert_eq!(handle.ensure_allocated().err(), Some(Error::Stale));
    }
    let second = out(&pool);
    assert_eq!(second.read(0, 1).err(), Some(Error::NotAllocated));
    second.write(500, &[7]).unwrap();
    let mut expected = vec![0; 1000];
    expected[500] = 7;
    assert_eq!(contents(&second), expected);
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.allocated), (1, 1, 1));
}

#[test]
fn a_pool_has_its_maximum_and_takes_back_only_its_own() {
    let pool = bytes_pool(64, 2);
    let (a, b) = (out(&pool), out(&pool));
    let refused = pool.check_out(&Label::default()).err();
    assert_eq!(refused, Some(Error::PoolExhausted { max: 2 }));
    let other = bytes_pool(64, 2);
    assert_eq!(other.check_in(&a, true), Err(Error::Foreign));
    let plain = Buffer::lazy(test_device(), (DType::U8, 64)).unwrap();
    assert_eq!(pool.check_in(&plain, true), Err(Error::Foreign));
    let view = a.view(0, 64).unwrap();
    assert_eq!(pool.check_in(&view, true), Err(Error::NotRoot));
    pool.check_in(&a, true).unwrap();
    assert_eq!(pool.check_in(&a, true), Err(Error::Stale));
    assert_eq!(pool.stats().available, 1);
    // A buffer that was not checked in returns to the pool when its last handle is dropped.
    drop((b, view));
    assert_eq!(pool.stats().available, 2);
    pool.close();
    assert_eq!(pool.stats().allocated, 0);
    assert_eq!(pool.check_out(&Label::default()).err(), Some(Error::Stale));
}

#[test]
fn who_waits_is_woken_and_who_died_gives_back() {
    let woken = Arc::new(AtomicU64::new(0));
    let count = woken.clone();
    let waker = Box::new(move || {
        count.fetch_add(1, Relaxed);
    });
    let pool = Pool::new(test_device(), (DType::U8, 64).into(), 1, Some(waker)).unwrap();
    let held = out(&pool);
    held.write(0, &[1; 64]).unwrap();
    pool.set_waiting(1);
    held.abandon();
    assert_eq!(held.read(0, 64).err(), Some(Error::Stale));
    assert_eq!((woken.load(Relaxed), pool.stats().available), (1, 1));
}

#[test]
fn shared_pools_are_found_by_size_and_trimmed_with_the_device() {
    let device = test_device();
    let spec = || (DType::U8, 12_345).into();
    let pool = shared_pools::find_or_create(&device, &spec(), 3).unwrap();
    let buffer = out(&pool);
    assert!(Arc::ptr_eq(
        &pool,
        &shared_pools::find_or_create(&device, &spec(), 3).unwrap()
    ));
    shared_pools::check_in(&buffer, true).unwrap();
    assert_eq!(shared_pools::check_in(&buffer, true), Err(Error::Stale));
    let mine = |(_, bytes, _, stats): (_, u64, _, pool::Stats)| (bytes == 12_345).then_some(stats);
    assert_eq!(
        shared_pools::stats()
            .into_iter()
            .find_map(mine)
            .unwrap()
            .available,
        1
    );
    device.trim().unwrap();
    assert_eq!(pool.stats().allocated, 0);
}

#[test]
fn dropped_tensors_are_stale_all_or_none() {
    let arena = arena(100_000, Growth::Fixed);
    let (a, b, c) = (tensor(&arena, 100), tensor(&arena, 50), tensor(&arena, 0));
    a.write(0, &[1; 400]).unwrap();
    b.write(0, &[2; 200]).unwrap();
    assert!(a.same_storage(&b) && !a.overlaps(&b));
    assert!(a.overlaps(&a.share()) && !a.overlaps(&a.detach()));
    arena.drop_tensors(&[&b, &c], true).unwrap();
    assert_eq!(contents(&a.slice_bytes(0, 400).unwrap()), [1; 400]);
    assert_eq!(arena.drop_tensors(&[&a, &b], true), Err(Error::Stale));
    assert_eq!(b.read(0, 1).err(), Some(Error::Stale));
    let other = self::arena(100, Growth::Fixed);
    assert_eq!(other.drop_tensors(&[&a], true), Err(Error::Foreign));
    let again = tensor(&arena, 50);
    assert_eq!(again.read(0, 1).err(), Some(Error::NotAllocated));
    again.write(1, &[9; 4]).unwrap();
    assert_eq!(
        contents(&again.view(0, 2).unwrap()),
        [0, 0, 0, 0, 9, 9, 9, 9]
    );
    arena.drop_tensors(&[&again], false).unwrap();
    assert_eq!(again.read(0, 1).err(), Some(Error::Stale));
    let detached = a.detach();
    arena.reset().unwrap();
    for old in [&a, &again, &detached] {
        assert_eq!(old.read(0, 1).err(), Some(Error::Stale));
    }
    assert_eq!((arena.used(), arena.capacity()), (Ok(0), Ok(100_000)));
}

#[test]
fn a_tensor_dropped_below_another_is_stale_at_once_and_free_after_it() {
    for may_wait in [true, false] {
        let arena = arena(1000, Growth::Fixed);
        let [a, b, c] = [0; 3].map(|_| tensor(&arena, 64));
        b.write(0, &[2; 256]).unwrap();
        arena.drop_tensors(&[&a], may_wait).unwrap();
        assert_eq!(a.write(0, &[1; 256]), Err(Error::Stale));
        assert_eq!(arena.drop_tensors(&[&a], may_wait), Err(Error::Stale));
        // Its bytes still count, and no tensor is placed over the tensors above.
        assert_eq!(arena.used(), Ok(768));
        arena.drop_tensors(&[&c], may_wait).unwrap();
        assert_eq!(arena.used(), Ok(512));
        let d = tensor(&arena, 64);
        d.write(0, &[4; 256]).unwrap();
        assert_eq!(contents(&b.slice_bytes(0, 256).unwrap()), [2; 256]);
        arena.drop_tensors(&[&b], may_wait).unwrap();
        assert_eq!((arena.used(), arena.peak()), (Ok(768), 768));
        assert_eq!(contents(&d.slice_bytes(0, 256).unwrap()), [4; 256]);
        arena.drop_tensors(&[&d], may_wait).unwrap();
        assert_eq!(arena.used(), Ok(0));
        // All of the arena can be allocated again.
        let all = arena.alloc((DType::U8, 1000).into(), true).unwrap();
        assert_eq!(all.read(0, 1).err(), Some(Error::NotAllocated));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Each step allocates a tensor, or drops some of the existing ones, in any order.
    #[test]
    fn an_arena_behaves_like_a_stack_with_gaps(
        steps in prop::collection::vec((any::<bool>(), 0u64..9, any::<u64>()), 1..60),
    ) {
        let arena = arena(1 << 20, Growth::Fixed);
        // For each tensor its bytes with padding, and the tensor with its content; `None` after it was dropped.
        type Content = Option<(Buffer, Vec<u8>)>;
        let mut stack: Vec<(u64, Content)> = Vec::new();
        for (drops, count, seed) in steps {
            let there: Vec<usize> = (0..stack.len()).filter(|at| stack[*at].1.is_some()).collect();
            if !drops || there.is_empty() {
                let before = arena.used().unwrap();
                let bytes = count * (seed % 500);
                let tensor = arena.alloc((DType::U8, bytes).into(), true).unwrap();
                prop_assert!(tensor.write(0, &pattern(seed, bytes as usize)).is_ok());
                let room = arena.used().unwrap() - before;
                prop_assert!(room >= bytes && room < bytes + 256 + u64::from(bytes == 0));
                stack.push((room, Some((tensor, pattern(seed, bytes as usize)))));
            } else {
                let chosen = (0..=count / 4).map(|nth| there[(seed >> (8 * nth)) as usize % there.len()]);
                let chosen: std::collections::BTreeSet<usize> = chosen.collect();
                let tensors: Vec<Buffer> = chosen
                    .into_iter()
                    .filter_map(|at| stack[at].1.take())
                    .map(|(tensor, _)| tensor)
                    .collect();
                let all: Vec<&Buffer> = tensors.iter().collect();
                prop_assert_eq!(arena.drop_tensors(&all, seed & 1 == 0), Ok(()));
                for tensor in all {
                    prop_assert_eq!(tensor.read(0, 0).err(), Some(Error::Stale));
                    prop_assert_eq!(arena.drop_tensors(&[tensor], true), Err(Error::Stale));
                }
            }
            while stack.pop_if(|top| top.1.is_none()).is_some() {}
            let used: u64 = stack.iter().map(|tensor| tensor.0).sum();
            prop_assert_eq!(arena.used(), Ok(used));
            for (tensor, content) in stack.iter().filter_map(|tensor| tensor.1.as_ref()) {
                prop_assert_eq!(&contents(tensor), content);
            }
        }
    }
}

#[test]
fn a_fixed_arena_is_full_and_another_grows_beside_its_tensors() {
    let fixed = arena(1000, Growth::Fixed);
    let exact = fixed.alloc((DType::U8, 1000).into(), true).unwrap();
    exact.write(0, &pattern(3, 1000)).unwrap();
    let full = |requested| Error::ArenaFull {
        requested,
        used: 1000,
        capacity: 1000,
    };
    assert_eq!(
        fixed.alloc((DType::U8, 1).into(), true).err(),
        Some(full(1))
    );
    assert_eq!(contents(&exact), pattern(3, 1000));

    let growing = arena(0, Growth::Extendable);
    let mut tensors = Vec::new();
    for step in 0..200u64 {
        let tensor = growing
            .alloc((DType::U8, 1 + step * 97).into(), true)
            .unwrap();
        tensor
            .write(0, &pattern(step, tensor.bytes() as usize))
            .unwrap();
        tensors.push(tensor);
    }
    for (step, tensor) in tensors.iter().enumerate() {
        assert_eq!(
            contents(tensor),
            pattern(step as u64, tensor.bytes() as usize)
        );
    }
    let capacity = growing.capacity().unwrap();
    let all: Vec<&Buffer> = tensors.iter().rev().collect();
    growing.drop_tensors(&all, true).unwrap();
    assert_eq!(growing.used(), Ok(0));
    growing.reset().unwrap();
    assert_eq!(growing.capacity(), Ok(capacity));
}

#[test]
fn windows_share_the_arena_and_exclude_tensors() {
    let arena = arena(1000, Growth::Fixed);
    let first = arena.reshape((DType::U8, 600).into(), 0).unwrap();
    let second = arena.reshape((DType::U16, 250).into(), 250).unwrap();
    first.fill(5).unwrap();
    assert!(first.overlaps(&second));
    assert_eq!(contents(&second.view(0, 50).unwrap()), [5; 100]);
    let refused = arena.alloc((DType::U8, 1).into(), true).err();
    assert_eq!(refused, Some(Error::ArenaInUse { holds: "windows" }));
    assert!(arena.reshape((DType::U8, 1001).into(), 0).is_err());
    arena.reset().unwrap();
    assert_eq!(second.read(0, 1).err(), Some(Error::Stale));
    let kept = tensor(&arena, 1);
    let refused = arena.reshape((DType::U8, 1).into(), 0).err();
    assert_eq!(refused, Some(Error::ArenaInUse { holds: "tensors" }));
    drop(kept);
    arena.release();
    arena.release();
    assert_eq!(arena.used(), Err(Error::Stale));
}

#[test]
fn what_was_measured_is_enough() {
    let measure = arena(0, Growth::Measuring);
    let work = |arena: &Arena| -> Result<(), Error> {
        let (a, b) = (tensor(arena, 7), tensor(arena, 1000));
        b.write(0, &pattern(1, 4000))?;
        arena.drop_tensors(&[&a, &b], true)?;
        tensor(arena, 500);
        arena.reset()
    };
    work(&measure).unwrap();
    let peak = measure.peak();
    work(&arena(peak, Growth::Fixed)).unwrap();
    assert_eq!(arena(peak, Growth::Fixed).peak(), 0);
}

#[test]
fn owners_have_arenas_of_their_own() {
    let device = test_device();
    let parts = PerProcessArenas::new(device.clone(), (DType::U8, 5000).into(), 2, false).unwrap();
    assert!(parts.find(1).unwrap().is_none());
    let one = parts.find_or_create(1).unwrap();
    let other = parts.find_or_create(2).unwrap();
    assert!(Arc::ptr_eq(&one, &parts.find_or_create(1).unwrap()));
    let refused = parts.find_or_create(3).err();
    assert_eq!(refused, Some(Error::PoolExhausted { max: 2 }));
    let (a, b) = (tensor(&one, 10), tensor(&other, 10));
    a.fill(1).unwrap();
    b.fill(2).unwrap();
    parts.release(1);
    assert_eq!(a.read(0, 1).err(), Some(Error::Stale));
    assert_eq!(contents(&b.slice_bytes(0, 1).unwrap()), [2]);
    parts.find_or_create(3).unwrap();
    parts.release_all();
    assert_eq!(b.read(0, 1).err(), Some(Error::Stale));
    assert_eq!(parts.find_or_create(3).err(), Some(Error::Stale));
}

#[test]
fn everything_returns_to_the_account() {
    let info = test_device().info.clone();
    let device = ex_cubecl_core::registry::open(info.id).unwrap();
    let before = live(&device);
    {
        let spec = || (DType::U8, 3 << 20).into();
        let pool = Pool::new(device.clone(), spec(), 3, None).unwrap();
        let _held = (out(&pool), out(&pool));
        let arena = Arena::new(device.clone(), spec(), Growth::Extendable).unwrap();
        let _tensors = (tensor(&arena, 1 << 20), tensor(&arena, 1 << 20));
        assert!(live(&device).0 >= 12 << 20);
    }
    // Other tests run at the same time.
    assert!(live(&device).0 < before.0 + (12 << 20));
}
