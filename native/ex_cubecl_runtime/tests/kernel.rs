//! Trees that run on the device, compared with the same arithmetic on the host.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{bytes_buffer, contents, pattern, test_device};
use ex_cubecl_core::launch::kernel::{Kernel, Launch, run_all, try_run};
use ex_cubecl_core::launch::matmul::{Lengths, Operand, matmul};
use ex_cubecl_core::program::tree::{
    Atomic, Binary, Expr, Group, INDEX, Program, Stmt, Type, Unary,
};
use ex_cubecl_core::{Buffer, DType, Error};

use DType::{F32, S32, U8};

fn floats(values: &[f32]) -> Buffer {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    Buffer::from_bytes(test_device(), F32, &bytes).unwrap()
}

fn read(buffer: &Buffer) -> Vec<f32> {
    let bytes = contents(buffer);
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_ne_bytes(*word))
        .collect()
}

fn bin(op: Binary, left: Expr, right: Expr) -> Expr {
    Expr::Binary(op, Box::new(left), Box::new(right))
}

fn int(value: i32) -> Expr {
    Expr::Const(S32, u64::from(value as u32))
}

fn saxpy() -> Kernel {
    let product = bin(Binary::Mul, Expr::Scalar(0), Expr::ElementAtSelf(0));
    Kernel::new(Program {
        inputs: vec![F32, F32],
        outputs: vec![F32],
        scalars: vec![F32],
        locals: vec![],
        body: vec![Stmt::Put(
            2,
            bin(Binary::Add, product, Expr::ElementAtSelf(1)),
        )],
        report: None,
        group: None,
    })
    .unwrap()
}

#[test]
fn every_element_is_calculated_once_whatever_their_number() {
    let device = test_device();
    for count in [1usize, 255, 256, 257, 100_000, 3_000_000] {
        let x: Vec<f32> = (0..count).map(|n| n as f32).collect();
        let y: Vec<f32> = (0..count).map(|n| (n % 7) as f32).collect();
        let (x, y) = (floats(&x), floats(&y));
        let two = u64::from(2f32.to_bits());
        let spec = (F32, count as u64).into();
        let out = saxpy()
            .map(&device, &[&x, &y], &[two], vec![spec], count as u64)
            .unwrap();
        let wrong = read(&out[0])
            .iter()
            .enumerate()
            .position(|(n, value)| *value != 2.0 * n as f32 + (n % 7) as f32);
        assert_eq!(wrong, None, "of {count}");
    }
}

#[test]
fn reads_outside_are_zero_and_writes_outside_do_nothing() {
    let device = test_device();
    let neighbours = floats(&[9.0; 64]);
    let (left, out) = (neighbours.view(8, 8).unwrap(), floats(&[7.0; 64]));
    let target = out.view(20, 8).unwrap();
    // target[i - 2] = left[i - 3], over more invocations than there are elements.
    let moved = |by| bin(Binary::Sub, Expr::GlobalId, int(by));
    let program = Program {
        inputs: vec![F32],
        outputs: vec![F32],
        scalars: vec![],
        locals: vec![],
        body: vec![Stmt::Write(1, moved(2), Expr::Read(0, Box::new(moved(3))))],
        report: None,
        group: None,
    };
    let kernel = Kernel::new(program).unwrap();
    kernel.run(&[&left], &[], &[&target], 1000).unwrap();
    let mut expected = vec![7.0; 64];
    expected[20..28].copy_from_slice(&[0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]);
    assert_eq!(read(&out), expected);
    assert_eq!(read(&neighbours), vec![9.0; 64]);
    device.synchronize().unwrap();
}

#[test]
fn loops_branches_and_variables_do_what_they_say() {
    let device = test_device();
    // sum = 0; for i <- 0..len - 1, do: if x[i] > 0, do: sum = sum + x[i]; out[position] = sum
    let (i, sum) = (0, 1);
    let element = || Expr::Read(0, Box::new(Expr::Local(i)));
    let positive = bin(Binary::Gt, element(), Expr::Const(F32, 0));
    let more = Stmt::Set(sum, bin(Binary::Add, Expr::Local(sum), element()));
    let body = vec![
        Stmt::Set(sum, Expr::Const(F32, 0)),
        Stmt::For(
            i,
            int(0),
            bin(Binary::Sub, Expr::Len(0), int(1)),
            vec![Stmt::If(positive, vec![more], vec![])],
        ),
        Stmt::Put(1, Expr::Local(sum)),
    ];
    let program = Program {
        inputs: vec![F32],
        outputs: vec![F32],
        scalars: vec![],
        locals: vec![INDEX, Type::Of(F32)],
        body,
        report: None,
        group: None,
    };
    let x = floats(&[1.0, -5.0, 2.5, -1.0, 4.0]);
    let out = Kernel::new(program)
        .unwrap()
        .map(&device, &[&x], &[], vec![(F32, 3).into()], 3)
        .unwrap();
    assert_eq!(read(&out[0]), [7.5; 3]);
}

#[test]
fn division_casts_and_narrow_types_have_one_answer() {
    let device = test_device();
    let values = [5i32, -7, i32::MIN, 0];
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let x = Buffer::from_bytes(device.clone(), S32, &bytes).unwrap();
    let run = |value: Expr, dtype: DType| {
        let program = Program {
            inputs: vec![S32],
            outputs: vec![dtype],
            scalars: vec![],
            locals: vec![],
            body: vec![Stmt::Put(1, value)],
            report: None,
            group: None,
        };
        let kernel = Kernel::new(program).unwrap();
        contents(
            &kernel
                .map(&device, &[&x], &[], vec![(dtype, 4).into()], 4)
                .unwrap()[0],
        )
    };
    let words = |bytes: Vec<u8>| -> Vec<i32> {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| i32::from_ne_bytes(*word))
            .collect()
    };
    let div = |by| words(run(bin(Binary::Div, Expr::ElementAtSelf(0), int(by)), S32));
    let rem = |by| words(run(bin(Binary::Rem, Expr::ElementAtSelf(0), int(by)), S32));
    assert_eq!(div(2), [2, -3, -1_073_741_824, 0]);
    assert_eq!(rem(2), [1, -1, 0, 0]);
    assert_eq!((div(0), rem(0)), (vec![0; 4], vec![0; 4]));
    assert_eq!((div(-1), rem(-1)), (vec![-5, 7, i32::MIN, 0], vec![0; 4]));
    let scaled = bin(
        Binary::Mul,
        Expr::Cast(F32, Box::new(Expr::ElementAtSelf(0))),
        Expr::Const(F32, u64::from(100f32.to_bits())),
    );
    assert_eq!(
        run(Expr::Cast(U8, Box::new(scaled.clone())), U8),
        [255, 0, 0, 0]
    );
    assert_eq!(
        words(run(Expr::Cast(S32, Box::new(scaled)), S32)),
        [500, -700, i32::MIN, 0]
    );
    let root = Expr::Unary(
        Unary::Sqrt,
        Box::new(Expr::Cast(F32, Box::new(Expr::ElementAtSelf(0)))),
    );
    let nan = Expr::Cast(S32, Box::new(root));
    assert_eq!(words(run(nan, S32)), [2, 0, 0, 0]);
    let shifted = bin(Binary::Shl, Expr::ElementAtSelf(0), int(33));
    assert_eq!(words(run(shifted, S32)), [10, -14, 0, 0]);
}

#[test]
fn what_cannot_run_is_refused_and_changes_nothing() {
    let device = test_device();
    let (x, y) = (floats(&[1.0; 8]), floats(&[2.0; 8]));
    let two = u64::from(2f32.to_bits());
    let kernel = saxpy();
    assert_eq!(kernel.run(&[&x, &y], &[two], &[&y], 8), Err(Error::Overlap));
    assert_eq!(
        kernel.run(
            &[&x, &y.view(0, 4).unwrap()],
            &[two],
            &[&y.view(4, 4).unwrap()],
            4
        ),
        Ok(())
    );
    assert_eq!(read(&y), [2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0]);
    let out = Buffer::lazy(device.clone(), (F32, 8)).unwrap();
    assert!(matches!(
        kernel.run(&[&x], &[two], &[&out], 8),
        Err(Error::BadKernel { .. })
    ));
    assert!(matches!(
        kernel.run(&[&x, &y], &[], &[&out], 8),
        Err(Error::BadKernel { .. })
    ));
    assert!(matches!(
        kernel.run(&[&x, &y], &[two], &[&out], 9),
        Err(Error::ShapeMismatch { .. })
    ));
    let bytes = Buffer::lazy(device.clone(), (U8, 8)).unwrap();
    assert!(matches!(
        kernel.run(&[&x, &bytes], &[two], &[&out], 8),
        Err(Error::TypeMismatch { .. })
    ));
    assert!(!out.is_allocated());
    let lazy = Buffer::lazy(device.clone(), (F32, 8)).unwrap();
    assert_eq!(
        kernel.run(&[&x, &lazy], &[two], &[&out], 8),
        Err(Error::NotAllocated)
    );
    assert_eq!(kernel.run(&[&x, &y], &[two], &[&out], 0), Ok(()));
    assert_eq!(out.read(0, 8), Err(Error::NotAllocated));
}

fn set(local: usize, value: Expr) -> Stmt {
    Stmt::Set(local, value)
}

/// A program with groups from s32 to s32, with one s32 local.
fn grouped(threads: u32, shared: Vec<(DType, u32)>, body: Vec<Stmt>) -> Program {
    Program {
        inputs: vec![S32],
        outputs: vec![S32],
        scalars: vec![],
        locals: vec![INDEX, INDEX],
        body,
        report: None,
        group: Some(Group { threads, shared }),
    }
}

fn ints(values: &[i32]) -> Buffer {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    Buffer::from_bytes(test_device(), S32, &bytes).unwrap()
}

fn read_ints(buffer: &Buffer) -> Vec<i32> {
    let bytes = contents(buffer);
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| i32::from_ne_bytes(*word)).collect()
}

const SHARED: usize = 2;

/// The sum of each group's elements, as a tree reduction with a barrier after each step.
fn sums(threads: u32) -> Program {
    let read = |at| Expr::Read(SHARED, Box::new(at));
    let place = bin(
        Binary::Add,
        bin(Binary::Mul, Expr::GroupId, int(threads as i32)),
        Expr::LocalId,
    );
    let mut body = vec![
        Stmt::Write(SHARED, Expr::LocalId, Expr::Read(0, Box::new(place))),
        Stmt::Barrier,
    ];
    let mut half = threads / 2;
    while half > 0 {
        let other = read(bin(Binary::Add, Expr::LocalId, int(half as i32)));
        let both = bin(Binary::Add, read(Expr::LocalId), other);
        body.push(set(0, both));
        body.push(Stmt::Barrier);
        let first = bin(Binary::Lt, Expr::LocalId, int(half as i32));
        let write = Stmt::Write(SHARED, Expr::LocalId, Expr::Local(0));
        body.push(Stmt::If(first, vec![write], vec![]));
        body.push(Stmt::Barrier);
        half /= 2;
    }
    let first = bin(Binary::Eq, Expr::LocalId, int(0));
    let write = Stmt::Write(1, Expr::GroupId, read(int(0)));
    body.push(Stmt::If(first, vec![write], vec![]));
    grouped(threads, vec![(S32, threads)], body)
}

#[test]
fn a_group_shares_memory_and_waits_for_its_threads() {
    let values: Vec<i32> = (0..64 * 300).collect();
    let (input, out) = (ints(&values), ints(&[-1; 300]));
    let kernel = Kernel::new(sums(64)).unwrap();
    kernel.run(&[&input], &[], &[&out], 300).unwrap();
    let expected: Vec<i32> = values.chunks(64).map(|group| group.iter().sum()).collect();
    assert_eq!(read_ints(&out), expected);
}

#[test]
fn there_are_as_many_groups_as_asked_for_and_each_is_another_one() {
    let count = |threads: u32| {
        let first = bin(Binary::Eq, Expr::LocalId, int(0));
        let one = Stmt::Atomic(Atomic::Add, 1, Expr::GroupId, int(1), None);
        grouped(threads, vec![], vec![Stmt::If(first, vec![one], vec![])])
    };
    for groups in [1, 65_535, 65_536, 200_001] {
        let out = ints(&vec![0; groups]);
        let kernel = Kernel::new(count(2)).unwrap();
        kernel
            .run(&[&ints(&[0])], &[], &[&out], groups as u64)
            .unwrap();
        assert!(read_ints(&out).iter().all(|value| *value == 1), "{groups}");
    }
}

#[test]
fn what_a_group_shares_is_zero_at_first_and_has_an_end() {
    let device = test_device();
    let read = |at| Expr::Read(SHARED, Box::new(at));
    let leave = grouped(
        64,
        vec![(S32, 256)],
        vec![
            Stmt::For(
                0,
                int(-9),
                int(300),
                vec![Stmt::Write(SHARED, Expr::Local(0), int(77))],
            ),
            Stmt::Barrier,
            Stmt::Write(1, Expr::GroupId, read(Expr::LocalId)),
        ],
    );
    let out = ints(&[-1; 64]);
    Kernel::new(leave)
        .unwrap()
        .run(&[&out.view(0, 1).unwrap()], &[], &[&ints(&[0; 64])], 64)
        .unwrap();
    device.synchronize().unwrap();
    let sum = bin(Binary::Add, Expr::Local(0), read(Expr::Local(1)));
    let find = grouped(
        64,
        vec![(S32, 256)],
        vec![
            set(0, int(0)),
            Stmt::For(1, int(-9), int(300), vec![set(0, sum)]),
            Stmt::Write(1, Expr::LocalId, Expr::Local(0)),
        ],
    );
    Kernel::new(find)
        .unwrap()
        .run(&[&ints(&[0])], &[], &[&out], 1)
        .unwrap();
    assert_eq!(read_ints(&out), [0; 64]);
}

#[test]
fn elements_are_changed_in_one_piece() {
    let cases = [
        (Atomic::Add, 5, 5 + (0..1000).sum::<i32>()),
        (Atomic::Max, 5, 999),
        (Atomic::Min, 5, 0),
        (Atomic::And, -1, 0),
        (Atomic::Or, 0, 1023),
        (Atomic::Xor, 0, (0..1000).fold(0, |a, b| a ^ b)),
    ];
    for (op, first, expected) in cases {
        // In the buffer and in the shared array, and not out of bounds of either.
        let at = |slot, index| Stmt::Atomic(op, slot, index, Expr::GlobalId, None);
        let body = vec![at(1, int(1)), at(1, int(-1)), at(1, int(3))];
        let program = Program {
            group: None,
            ..grouped(1, vec![], body)
        };
        let out = ints(&[first; 5]);
        let middle = out.view(1, 3).unwrap();
        let kernel = Kernel::new(program).unwrap();
        kernel.run(&[&ints(&[0])], &[], &[&middle], 1000).unwrap();
        assert_eq!(
            read_ints(&out),
            [first, first, expected, first, first],
            "{op:?}"
        );
    }
    // Each thread takes a number that no other thread gets.
    let take = Stmt::Atomic(Atomic::Add, SHARED, int(0), int(1), Some(0));
    let body = vec![take, Stmt::Write(1, Expr::Local(0), Expr::LocalId)];
    let out = ints(&[-1; 128]);
    let kernel = Kernel::new(grouped(128, vec![(S32, 1)], body)).unwrap();
    kernel.run(&[&ints(&[0])], &[], &[&out], 1).unwrap();
    let mut taken = read_ints(&out);
    taken.sort_unstable();
    assert_eq!(taken, (0..128).collect::<Vec<_>>());
}

#[test]
fn a_group_that_the_device_has_no_room_for_is_refused() {
    let out = ints(&[7]);
    for (threads, shared) in [(1 << 20, vec![]), (64, vec![(S32, 1 << 24)])] {
        let body = vec![Stmt::Write(1, int(0), int(0))];
        let kernel = Kernel::new(grouped(threads, shared, body)).unwrap();
        let refused = kernel.run(&[&ints(&[0])], &[], &[&out], 1);
        assert!(
            matches!(refused, Err(Error::BadKernel { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(read_ints(&out), [7]);
}

#[test]
fn a_loop_runs_to_its_end_or_says_that_it_did_not() {
    let count = |outer: Expr| {
        let one_more = set(2, bin(Binary::Add, Expr::Local(2), int(1)));
        let inner = Stmt::For(1, int(1), Expr::Scalar(1), vec![one_more]);
        Program {
            inputs: vec![S32],
            outputs: vec![S32],
            scalars: vec![S32, S32],
            locals: vec![INDEX; 3],
            body: vec![
                Stmt::For(0, int(1), outer, vec![inner]),
                Stmt::Write(1, Expr::GlobalId, Expr::Local(2)),
            ],
            report: None,
            group: None,
        }
    };
    let unknown = Expr::Read(0, Box::new(int(0)));
    for (outer, inner) in [(1, 100), (100, 100), (1, 70_000), (300, 1000), (70_000, 1)] {
        for to in [Expr::Scalar(0), unknown.clone()] {
            let (input, out) = (ints(&[outer]), ints(&[-1; 4]));
            let kernel = Kernel::new(count(to)).unwrap();
            let numbers = [outer as u64, inner as u64];
            let outcome = kernel.run(&[&input], &numbers, &[&out], 4);
            match outcome {
                Ok(()) => assert_eq!(read_ints(&out), [outer * inner; 4]),
                Err(Error::LoopLimit { .. }) => assert!(outer * inner > 60_000),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_product_is_right_and_leaves_its_neighbours_alone() {
    let device = test_device();
    let mut neighbours = Vec::new();
    let mut beside = |seed: u64| {
        let data = pattern(seed, 40_000);
        neighbours.push((bytes_buffer(&device, &data), data));
    };
    for (at, [batch, m, k, n]) in [
        [1, 257, 300, 263],
        [1, 300, 200, 301],
        [1, 1, 16_000, 1100],
        [1, 1100, 16_000, 1],
        [1, 259, 259, 259],
        [3, 65, 33, 130],
    ]
    .into_iter()
    .enumerate()
    {
        // As they are, and transposed.
        for turned in [false, true] {
            beside(at as u64);
            let small = |n: usize| (n * 7 % 11) as f32;
            let [a, b] =
                [m * k, k * n].map(|count| (0..batch * count).map(small).collect::<Vec<_>>());
            let (left, right) = (floats(&a), floats(&b));
            beside(100 + at as u64);
            let spec = (F32, (batch * m * n) as u64).into();
            let strides = |rows: usize, columns: usize| {
                let (row, column) = if turned { (1, rows) } else { (columns, 1) };
                [rows * columns, row, column].map(|stride| stride as u64)
            };
            let (left_strides, right_strides) = (strides(m, k), strides(k, n));
            let lengths = Lengths {
                batch: &[batch as u64],
                rows: m as u64,
                inner: k as u64,
                columns: n as u64,
            };
            let out = matmul(
                &whole(&left, &left_strides),
                &whole(&right, &right_strides),
                spec,
                &lengths,
            );
            let out = out.unwrap();
            beside(200 + at as u64);
            let Some(out) = out else {
                continue; // This device has no library kernel.
            };
            let product = read(&out);
            let element = |list: &[f32], strides: [u64; 3], at: [usize; 3]| {
                let places = at
                    .iter()
                    .zip(strides)
                    .map(|(at, stride)| at * stride as usize);
                list[places.sum::<usize>()]
            };
            for (row, column) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3), (m - 1, 0)] {
                let last = batch - 1;
                let product_of = |j| {
                    element(&a, left_strides, [last, row, j])
                        * element(&b, right_strides, [last, j, column])
                };
                let expected: f32 = (0..k).map(product_of).sum();
                let found = product[(last * m + row) * n + column];
                assert_eq!(found, expected, "{batch} {m} {k} {n}: {row} {column}");
            }
        }
    }
    for (buffer, data) in &neighbours {
        assert_eq!(&contents(buffer), data);
    }
}

fn whole<'a>(buffer: &'a Buffer, strides: &'a [u64]) -> Operand<'a> {
    Operand {
        buffer,
        offset: 0,
        strides,
    }
}

#[test]
fn a_product_whose_operands_are_not_inside_their_buffers_is_refused() {
    let (a, b) = (floats(&[1.0; 6]), floats(&[1.0; 6]));
    let lengths = |batch: &'static [u64], inner| Lengths {
        batch,
        rows: 2,
        inner,
        columns: 2,
    };
    let run = |operand: Operand<'_>, lengths: Lengths<'_>, count: u64| {
        matmul(&operand, &whole(&b, &[2, 1]), (F32, count).into(), &lengths)
    };
    type Outcome = Result<Option<Buffer>, Error>;
    let outside = |result: Outcome| matches!(result, Err(Error::OutOfBounds { .. }));
    assert!(outside(run(whole(&a, &[4, 1]), lengths(&[], 3), 4)));
    assert!(outside(run(whole(&a, &[u64::MAX, 1]), lengths(&[], 3), 4)));
    let late = Operand {
        buffer: &a,
        offset: 1,
        strides: &[3, 1],
    };
    assert!(outside(run(late, lengths(&[], 3), 4)));
    let mismatch = |result: Outcome| matches!(result, Err(Error::ShapeMismatch { .. }));
    assert!(mismatch(run(whole(&a, &[3, 1]), lengths(&[], 3), 5)));
    assert!(mismatch(run(whole(&a, &[3, 1, 1]), lengths(&[], 3), 4)));
    assert!(
        run(whole(&a, &[2, 2]), lengths(&[], 2), 4)
            .unwrap()
            .is_none()
    );
    assert!(
        run(whole(&a, &[3, 1]), lengths(&[], 0), 4)
            .unwrap()
            .is_none()
    );
}

/// The sum of many buffers and 1.
fn sum_of(inputs: usize) -> Kernel {
    let one = Expr::Const(F32, u64::from(1f32.to_bits()));
    let sum = (0..inputs).fold(one, |sum, slot| {
        bin(Binary::Add, sum, Expr::ElementAtSelf(slot))
    });
    Kernel::new(Program {
        inputs: vec![F32; inputs],
        outputs: vec![F32],
        scalars: vec![],
        locals: vec![],
        body: vec![Stmt::Put(inputs, sum)],
        report: None,
        group: None,
    })
    .unwrap()
}

#[test]
fn a_kernel_has_as_many_buffers_as_the_device_binds_and_one_more_is_refused() {
    let device = test_device();
    let most = device.info.max_buffers as usize;
    let inputs: Vec<_> = (0..most).map(|n| floats(&[n as f32; 3])).collect();
    let inputs: Vec<_> = inputs.iter().collect();
    let map = |inputs: &[&Buffer]| {
        let kernel = sum_of(inputs.len());
        kernel.map(&device, inputs, &[], vec![(F32, 3).into()], 3)
    };
    let sum = (1..most as i32 - 1).sum::<i32>() + 1;
    assert_eq!(
        read(&map(&inputs[1..]).unwrap()[0])[0],
        sum as f32 + most as f32 - 1.0
    );
    let refused = map(&inputs).err().unwrap();
    assert!(refused.to_string().contains("at most"), "{refused}");
}

#[test]
fn an_output_that_no_launch_has_replaced_is_unreadable() {
    let device = test_device();
    let kernel = sum_of(1);
    let lazy = || Buffer::lazy(device.clone(), (F32, 1000)).unwrap();
    let input = floats(&[2.0; 1000]);
    fn launch<'a>(kernel: &'a Kernel, input: &'a Buffer, output: &'a Buffer) -> Launch<'a> {
        Launch {
            kernel,
            buffers: vec![input, output],
            scalars: &[],
            invocations: 1000,
            replaces: true,
        }
    }
    kernel.compile(&device).unwrap();
    let at_once = |it: &Launch<'_>| try_run(it).map(|launched| assert!(launched));
    let waiting = |it: &Launch<'_>| run_all(std::slice::from_ref(it));
    for blocks in [false, true] {
        drop(floats(&[7.0; 1000]));
        let output = lazy();
        let launch = launch(&kernel, &input, &output);
        let ran = if blocks {
            waiting(&launch)
        } else {
            at_once(&launch)
        };
        ran.unwrap();
        assert_eq!(read(&output), [3.0; 1000]);
    }
    drop(floats(&[7.0; 1000]));
    let (unwritten, output) = (lazy(), lazy());
    let bad = launch(&kernel, &unwritten, &output);
    assert_eq!(try_run(&bad), Ok(false));
    assert_eq!(output.read(0, 1), Err(Error::NotAllocated));
    // The second launch fails, so that the first one is not made either.
    let both = [launch(&kernel, &input, &output), bad];
    assert_eq!(run_all(&both), Err(Error::NotAllocated));
    assert_eq!(output.read(0, 1), Err(Error::NotAllocated));
    run_all(&both[..1]).unwrap();
    assert_eq!(read(&output), [3.0; 1000]);
}
