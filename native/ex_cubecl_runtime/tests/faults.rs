//! A panic at each stage of each call: afterwards the content is either the old one or the one that
//! the call writes, the counts are exact, and further calls work.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use common::{contents, pattern, test_device};
use ex_cubecl_core::allocators::arena::{Arena, Growth};
use ex_cubecl_core::allocators::pool::Pool;
use ex_cubecl_core::device::Device;
use ex_cubecl_core::failpoints::{Stage, arm, disarm};
use ex_cubecl_core::replicas::write_all;
use ex_cubecl_core::{Buffer, DType, Label};

const SIZE: u64 = 3001;

/// Suppresses the messages of injected panics, which are expected.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.contains("injected")) {
                others(info);
            }
        }));
    });
}

struct House {
    device: Arc<Device>,
    kept: Buffer,
    changing: Buffer,
    pool: Arc<Pool>,
    arena: Arena,
}

fn house() -> House {
    let device = test_device();
    let make = |seed| {
        Buffer::from_bytes(device.clone(), DType::U8, &pattern(seed, SIZE as usize)).unwrap()
    };
    House {
        kept: make(1),
        changing: make(2),
        pool: Pool::new(device.clone(), (DType::U8, SIZE).into(), 2, None).unwrap(),
        arena: Arena::new(device.clone(), (DType::U8, 64).into(), Growth::Extendable).unwrap(),
        device,
    }
}

type Call = fn(&House);

/// The calls. After a panic `changing` has its old content or the one that the call gives it.
fn calls() -> Vec<(&'static str, Call)> {
    let mut calls: Vec<(&'static str, Call)> = Vec::new();
    calls.push(("write", |house| {
        house.changing.write(0, &pattern(3, SIZE as usize)).unwrap();
    }));
    calls.push(("fill", |house| house.changing.fill(7).unwrap()));
    calls.push(("copy", |house| {
        house.kept.copy_to(&house.changing).unwrap();
    }));
    calls.push(("read", |house| drop(house.kept.read(0, SIZE).unwrap())));
    calls.push(("new", |house| {
        let data = pattern(4, 20_000_000);
        let made = Buffer::from_bytes(house.device.clone(), DType::U8, &data).unwrap();
        assert_eq!(contents(&made), data);
    }));
    calls.push(("lazy", |house| {
        let lazy = Buffer::lazy(house.device.clone(), (DType::F32, 100)).unwrap();
        lazy.view(3, 5).unwrap().fill(0).unwrap();
        assert_eq!(contents(&lazy), vec![0; 400]);
    }));
    calls.push(("convert", |house| {
        let converted = house.kept.convert(house.kept.like(DType::F32)).unwrap();
        assert_eq!(converted.count(), SIZE);
    }));
    calls.push(("iota", |house| {
        Buffer::iota(house.device.clone(), (DType::U8, 10)).unwrap();
    }));
    calls.push(("pool", |house| {
        let buffer = house.pool.check_out(&Label::default()).unwrap();
        buffer.fill(9).unwrap();
        house.pool.check_in(&buffer, true).unwrap();
    }));
    calls.push(("arena", |house| {
        let tensor = house.arena.alloc((DType::U8, SIZE).into(), true).unwrap();
        tensor.fill(5).unwrap();
        assert_eq!(contents(&tensor), vec![5; SIZE as usize]);
        house.arena.drop_tensors(&[&tensor], true).unwrap();
    }));
    calls.push(("replicas", |house| {
        let other = Buffer::lazy(house.device.clone(), (DType::U8, SIZE)).unwrap();
        let data = pattern(6, SIZE as usize);
        write_all(&[(&house.changing, &data), (&other, &data)]).unwrap();
    }));
    calls.push(("job", |house| {
        let (sender, answer) = channel();
        let source = house.kept.share();
        let pending = source.start_read(0, SIZE, None).unwrap();
        let job = move || {
            let mut bytes = vec![0; SIZE as usize];
            let read = source.finish_read(pending, &mut bytes, None);
            drop(sender.send(read.map(|()| bytes)));
        };
        house.device.worker().wait(job).unwrap();
        // A result, or a closed channel because the job panicked.
        match answer.recv_timeout(Duration::from_secs(20)) {
            Ok(bytes) => assert_eq!(bytes.unwrap(), pattern(1, SIZE as usize)),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{}", "injected into the job".to_string())
            }
            Err(RecvTimeoutError::Timeout) => {
                // The test accepts panics of a call, so that only this fails it.
                eprintln!("the job did not answer");
                std::process::exit(1);
            }
        }
    }));
    calls
}

fn allowed(name: &str) -> Vec<Vec<u8>> {
    let old = pattern(2, SIZE as usize);
    match name {
        "write" => vec![old, pattern(3, SIZE as usize)],
        "fill" => vec![old, vec![7; SIZE as usize]],
        "copy" => vec![old, pattern(1, SIZE as usize)],
        "replicas" => vec![old, pattern(6, SIZE as usize)],
        _ => vec![old],
    }
}

#[test]
fn a_panic_at_any_stage_of_any_call_loses_and_mixes_up_nothing() {
    quiet();
    let mut hits = vec![0; Stage::ALL.len()];
    for (name, call) in calls() {
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            for skip in 0..3 {
                let house = house();
                arm(stage, skip);
                let outcome = catch_unwind(AssertUnwindSafe(|| call(&house)));
                hits[at] += u32::from(disarm() || (outcome.is_err() && name == "job"));
                let place = format!("{name} at {stage:?}, {skip}");
                check(&house, name, &place);
                // The same call without a fault.
                call(&house);
                finish(house, &place);
            }
        }
    }
    for (stage, hits) in Stage::ALL.into_iter().zip(hits) {
        assert!(hits > 0, "no call passes {stage:?}");
    }
}

fn check(house: &House, name: &str, place: &str) {
    assert_eq!(contents(&house.kept), pattern(1, SIZE as usize), "{place}");
    let found = contents(&house.changing);
    assert!(allowed(name).contains(&found), "{place}");
    let stats = house.pool.stats();
    assert!(stats.allocated <= 1, "{place}: {stats:?}");
    // Both buffers of the pool can be checked out.
    let held: Vec<Buffer> = (0..2)
        .map(|_| house.pool.check_out(&Label::default()).unwrap())
        .collect();
    for buffer in held {
        house.pool.check_in(&buffer, true).unwrap();
    }
    house.arena.reset().unwrap();
    assert_eq!(house.arena.used().unwrap(), 0, "{place}");
}

fn finish(house: House, place: &str) {
    let device = house.device.clone();
    drop(house);
    // The worker drops a job shortly after its result was sent.
    let patience = Instant::now() + Duration::from_secs(10);
    while device.account().live_buffers > 0 && Instant::now() < patience {
        std::thread::yield_now();
    }
    let usage = device.account();
    assert_eq!((usage.live_bytes, usage.live_buffers), (0, 0), "{place}");
}
