//! The default bodies of `Backend`, which CUDA uses, on the device that every machine has.

#![allow(clippy::unwrap_used)] // also in helpers, which are not test functions

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cubecl::server::Handle;
use cubecl::stream_id::StreamId;

use crate::cube::device_thread::Task;
use crate::cube::{Backend, Client, Cube};
use crate::kernels::{self, Window};
use crate::lower::compiled::Compiled;
use crate::lower::launch::{Bound, Launch};
use crate::wgpu::adapters::enumerate;
use crate::wgpu::backend::register;
use ex_cubecl_core::driver::{Driver, Page, Region};
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::tree::{Expr, Program, Stmt};
use ex_cubecl_core::threads::large_stack::on_watched_stack;

struct Portable;

impl Backend for Portable {
    type Runtime = cubecl::wgpu::WgpuRuntime;
    type PageData = ();

    fn page_data(_client: &Client<Self>, _handle: &Handle) -> Result<()> {
        Ok(())
    }

    fn is_lost(&self) -> bool {
        false
    }

    fn lose(&self) {}
}

fn portable() -> Cube<Portable> {
    let info = enumerate().into_iter().next().unwrap();
    let (device, _gpu) = register(&info).unwrap();
    Cube::new(info.id, &device, Portable).unwrap()
}

fn region(page: &Page, offset: u64, len: u64) -> Region<'_> {
    Region {
        page,
        offset,
        len,
        slack: 0,
    }
}

fn read(cube: &Cube<Portable>, page: &Page, offset: u64, len: u64) -> Vec<u8> {
    let pending = cube.read(region(page, offset, len), None).unwrap();
    let mut bytes = vec![0; len as usize];
    pending.wait_into(0, &mut bytes, None).unwrap();
    bytes
}

#[test]
fn bytes_arrive_at_any_offset_and_leave_their_neighbours_alone() {
    let cube = portable();
    let page = cube.alloc(4096).unwrap();
    let mut model: Vec<u8> = (0..4096u32).map(|at| (at * 7 + at / 256) as u8).collect();
    cube.write(region(&page, 0, 4096), &model, None).unwrap();
    for (offset, len) in [(1u64, 1u64), (3, 6), (256, 1024), (1001, 777), (4093, 3)] {
        let data: Vec<u8> = (0..len).map(|at| (at ^ offset) as u8).collect();
        cube.write(region(&page, offset, len), &data, None).unwrap();
        model[offset as usize..(offset + len) as usize].copy_from_slice(&data);
        let around = (offset.saturating_sub(2), len.min(4096 - offset));
        let expected = &model[around.0 as usize..(around.0 + around.1) as usize];
        assert_eq!(read(&cube, &page, around.0, around.1), expected);
    }
    assert_eq!(read(&cube, &page, 0, 4096), model);
}

#[test]
fn copies_and_fills_go_through_kernels() {
    let cube = portable();
    let (from, to) = (cube.alloc(1024).unwrap(), cube.alloc(1024).unwrap());
    let data: Vec<u8> = (0..1024u32).map(|at| at as u8).collect();
    cube.write(region(&from, 0, 1024), &data, None).unwrap();
    cube.fill(region(&to, 0, 1024), 0x55, 1).unwrap();
    cube.copy(region(&from, 5, 500), region(&to, 10, 500))
        .unwrap();
    cube.copy(region(&to, 10, 100), region(&to, 600, 100))
        .unwrap();
    let mut model = vec![0x55; 1024];
    model[10..510].copy_from_slice(&data[5..505]);
    model.copy_within(10..110, 600);
    assert_eq!(read(&cube, &to, 0, 1024), model);
}

#[test]
fn memory_is_counted_and_given_back() {
    let cube = portable();
    let before = cube.reserved().unwrap();
    let page = cube.alloc(8 << 20).unwrap();
    assert!(cube.reserved().unwrap() >= before + (8 << 20));
    drop(page);
    cube.trim().unwrap();
    assert_eq!(cube.reserved().unwrap(), before);
    assert!(
        cube.pointer(region(&cube.alloc(256).unwrap(), 0, 4))
            .is_err()
    );
}

/// A launch that no caller awaits, with memory that does not exist.
fn hopeless() -> Launch {
    let one = Expr::Const(DType::S32, 1);
    let program = Program {
        inputs: vec![],
        outputs: vec![DType::S32],
        scalars: vec![],
        locals: vec![],
        body: vec![Stmt::Write(0, Expr::GlobalId, one)],
        report: None,
        group: None,
    };
    let window = Window {
        handle: Handle::new(StreamId { value: 0 }, 256),
        words: 64,
        offset: 0,
    };
    Launch {
        place: Compiled::new(None).place(&Arc::new(program)).unwrap(),
        buffers: vec![Bound {
            window,
            dtype: DType::S32,
            count: 1,
        }],
        scalars: vec![],
        invocations: 1,
        status: None,
    }
}

#[test]
fn a_compilation_that_does_not_end_loses_the_device_and_blocks_no_caller() {
    let cube = portable();
    let page = cube.alloc(1024).unwrap();
    let (open, gate) = sync_channel::<()>(1);
    let hangs = cube.queue_and_wait(move |target| {
        let overdue = &*target.overdue;
        let compiled = on_watched_stack(Duration::from_millis(1), overdue, move || {
            gate.recv().map_err(Error::driver)
        });
        compiled.map_err(|error| error.to_string())
    });
    assert!(matches!(hangs, Err(Error::BadKernel { .. })));
    assert!(cube.is_lost());
    let window = cube.window(region(&page, 0, 1024)).unwrap();
    let next = cube.launch_and_wait(move |client| kernels::fill(client, window, 1024, 7, 1));
    assert!(matches!(next, Err(Error::Driver { .. })));
    cube.thread.wait_idle();
    drop(page);
    drop(cube);
    open.send(()).unwrap();
}

type Call = Box<dyn FnOnce(&Cube<Portable>, &Page) -> bool + Send>;

/// What callers of a device ask for, and whether it succeeded.
fn asks(cube: &Cube<Portable>, page: &Page) -> [bool; 5] {
    [
        cube.alloc(1024).is_ok(),
        cube.reserved().is_ok(),
        cube.write(region(page, 0, 4), &[1; 4], None).is_ok(),
        cube.fill(region(page, 256, 256), 1, 1).is_ok(),
        cube.sync().is_ok(),
    ]
}

/// Each caller waits in a call when the compilation exceeds its limit.
#[test]
fn no_caller_waits_for_a_compilation_that_does_not_end() {
    let cube = Arc::new(portable());
    let page = Arc::new(cube.alloc(1024).unwrap());
    assert_eq!(asks(&cube, &page), [true; 5]);
    let (open, gate) = sync_channel::<()>(1);
    let (done, answers) = sync_channel(64);
    let caller = |call: Call| {
        let (cube, page, done) = (cube.clone(), page.clone(), done.clone());
        std::thread::spawn(move || done.send(call(&cube, &page)).unwrap());
    };
    caller(Box::new(move |cube, _| {
        let hangs = cube.queue_and_wait(move |target| {
            let overdue = &*target.overdue;
            let limit = Duration::from_millis(300);
            on_watched_stack(limit, overdue, move || gate.recv().map_err(Error::driver))
                .map_err(|error| error.to_string())
        });
        hangs.is_ok()
    }));
    for _ in 0..8 {
        caller(Box::new(|cube, page| {
            while !cube.is_lost() {
                asks(cube, page);
            }
            // More calls than CubeCL's queue has room for.
            (0..16).any(|_| asks(cube, page).contains(&true))
        }));
    }
    for _ in 0..9 {
        assert_eq!(answers.recv_timeout(Duration::from_secs(60)), Ok(false));
    }
    open.send(()).unwrap();
}

#[test]
fn a_failed_launch_is_not_reported_to_the_next_caller() {
    let cube = portable();
    let page = cube.alloc(100_000).unwrap();
    let (open, gate) = sync_channel::<()>(1);
    let pushed = |run: Box<dyn FnOnce() + Send>| Task {
        run,
        after: None,
        awaited: false,
    };
    let wait = Box::new(move || gate.recv().unwrap());
    assert!(cube.thread.try_push(pushed(wait)));
    assert!(cube.thread.try_push(cube.later(vec![hopeless()])));
    let before = cube.thread.pushed();
    std::thread::scope(|scope| {
        let filled = scope.spawn(|| {
            let window = cube.window(region(&page, 0, 100_000))?;
            cube.launch_and_wait(move |client| kernels::fill(client, window, 100_000, 7, 1))
        });
        while cube.thread.pushed() == before {
            std::thread::yield_now();
        }
        open.send(()).unwrap();
        assert_eq!(filled.join().unwrap(), Ok(()));
    });
    cube.thread.wait_idle();
    assert!(cube.is_lost());
}
