//! Programs that keep making new kernels: compiled code of old kernels is freed, and these kernels work when they are
//! used again.
//!
//! `KERNELS=100000 cargo test --release -p ex_cubecl_runtime --test many_kernels -- --ignored --nocapture` measures the memory.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use std::sync::Arc;

use common::{contents, test_device};
use ex_cubecl_core::launch::kernel::Kernel;
use ex_cubecl_core::program::tree::{Binary, Expr, Group, Program, Stmt, Unary};
use ex_cubecl_core::{Buffer, DType, Device, Error};

use DType::S32;

/// More kernels than a device keeps compiled.
const MANY: u64 = 1_100;

fn int(value: u64) -> Expr {
    Expr::Const(S32, value)
}

fn bin(op: Binary, left: Expr, right: Expr) -> Expr {
    Expr::Binary(op, Box::new(left), Box::new(right))
}

fn program(body: Vec<Stmt>, group: Option<Group>) -> Program {
    Program {
        inputs: vec![],
        outputs: vec![S32],
        scalars: vec![],
        locals: vec![ex_cubecl_core::program::tree::INDEX],
        body,
        report: None,
        group,
    }
}

/// A kernel that writes its number, in one of several ways.
fn numbered(number: u64) -> Kernel {
    let kernel = match number % 3 {
        0 => program(vec![Stmt::Put(0, int(number))], None),
        1 => {
            let sum = bin(Binary::Add, Expr::GlobalId, int(number));
            let value = bin(Binary::Sub, sum, Expr::GlobalId);
            program(vec![Stmt::Write(0, Expr::GlobalId, value)], None)
        }
        _ => {
            let group = Group {
                threads: 1 + number as u32 % 32,
                shared: vec![],
            };
            program(
                vec![Stmt::Write(0, Expr::LocalId, int(number))],
                Some(group),
            )
        }
    };
    Kernel::new(kernel).unwrap()
}

fn ran(device: &Arc<Device>, kernel: &Kernel) -> u32 {
    let out = Buffer::from_bytes(device.clone(), S32, &[255; 4]).unwrap();
    kernel.run(&[], &[], &[&out], 1).unwrap();
    u32::from_ne_bytes(contents(&out).try_into().unwrap())
}

#[test]
fn a_device_keeps_so_many_kernels_and_each_does_its_own() {
    let device = test_device();
    let first = numbered(0);
    let second = numbered(1);
    assert_eq!((ran(&device, &first), ran(&device, &second)), (0, 1));
    let before = Kernel::count();
    for number in 2..MANY {
        assert_eq!(ran(&device, &numbered(number)), number as u32);
        assert_eq!(ran(&device, &first), 0);
    }
    assert!(first.is_compiled(&device));
    if device.id().runtime == ex_cubecl_core::device_id::Runtime::Cuda {
        return;
    }
    // Kernels that were evicted are not kept alive by anything but their handles.
    assert!(Kernel::count() < before + MANY as usize - 50);
    assert!(!second.is_compiled(&device));
    for number in 0..3 {
        assert_eq!(ran(&device, &numbered(number)), number as u32);
    }
    assert_eq!(ran(&device, &second), 1);
    assert!(second.is_compiled(&device));
}

#[test]
fn many_at_once_from_many_threads_do_their_own() {
    let device = test_device();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = &device;
            scope.spawn(move || {
                for number in 0..300 {
                    let number = 10_000 + number * (1 + thread % 2);
                    assert_eq!(ran(device, &numbered(number)), number as u32);
                }
            });
        }
    });
}

/// Trees of the largest allowed depth and of the largest allowed size.
#[test]
fn the_largest_kernels_compile_or_are_refused() {
    let device = test_device();
    let sum = |value, _| bin(Binary::Add, value, int(1));
    let deep = (0..190).fold(Expr::GlobalId, sum);
    let deep = program(vec![Stmt::Write(0, Expr::GlobalId, deep)], None);
    assert_eq!(ran(&device, &Kernel::new(deep).unwrap()), 190);

    let write = || Stmt::Write(0, Expr::GlobalId, bin(Binary::Add, Expr::Local(0), int(1)));
    let one = || Stmt::Set(0, bin(Binary::Add, Expr::Local(0), int(1)));
    let nested = |make: &dyn Fn(Stmt) -> Stmt, levels| (0..levels).fold(write(), |it, _| make(it));
    let below = || bin(Binary::Lt, Expr::GlobalId, int(7));
    let ifs = nested(&|it| Stmt::If(below(), vec![one(), it], vec![]), 90);
    let ifs = program(vec![ifs], None);
    assert_eq!(ran(&device, &Kernel::new(ifs).unwrap()), 91);
    let loops = nested(&|it| Stmt::For(0, int(1), int(1), vec![it]), 90);
    let loops = program(vec![loops], None);
    assert_eq!(ran(&device, &Kernel::new(loops).unwrap()), 2);

    let read = |index| Expr::Read(0, Box::new(index));
    let cases: [(&str, &dyn Fn() -> Stmt); 3] = [
        ("writes", &write),
        ("reads", &|| {
            Stmt::Set(0, bin(Binary::Add, read(Expr::Local(0)), int(1)))
        }),
        ("ifs", &|| Stmt::If(below(), vec![one()], vec![one()])),
    ];
    for (what, statement) in cases {
        let made = |length| Kernel::new(program(vec![statement(); length], None));
        let length = [2_000, 1_000, 500].into_iter();
        let length = length.into_iter().find(|length| made(*length).is_ok());
        let long = made(length.unwrap()).unwrap();
        let started = std::time::Instant::now();
        ran(&device, &long);
        println!(
            "{length:?} {what}: {:?}, {} MiB",
            started.elapsed(),
            resident()
        );
    }
    let long = program(vec![one(); 30_000], None);
    assert!(matches!(Kernel::new(long), Err(Error::BadKernel { .. })));
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = status.split_whitespace().nth(1).unwrap();
    pages.parse::<u64>().unwrap() * 4 / 1024
}

#[test]
#[ignore = "minutes long: measures memory"]
fn memory_of_many_kernels() {
    let device = test_device();
    let most = std::env::var("KERNELS").map_or(20_000, |most| most.parse().unwrap());
    let started = std::time::Instant::now();
    // For comparison: the same kernel every time.
    let same = std::env::var("SAME").is_ok();
    for at in 0..most {
        let number = if same { 7 } else { at };
        let square = bin(Binary::Mul, Expr::GlobalId, Expr::GlobalId);
        let value = bin(
            Binary::Add,
            square,
            Expr::Unary(Unary::Abs, Box::new(int(number))),
        );
        let kernel = program(vec![Stmt::Put(0, value)], None);
        assert_eq!(ran(&device, &Kernel::new(kernel).unwrap()), number as u32);
        if at % (most / 20) == 0 {
            println!("{at}: {} MiB, {:?}", resident(), started.elapsed());
        }
    }
}
