//! Buffers on a device: a read returns what was written, whichever buffers share the storage or the
//! slab.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{bytes_buffer, contents, pattern, test_device};
use ex_cubecl_core::allocators::pool::Pool;
use ex_cubecl_core::{Buffer, DType, Error};

#[test]
fn what_was_written_is_read_at_every_size() {
    let device = test_device();
    for len in [
        0,
        1,
        2,
        3,
        4,
        5,
        255,
        256,
        257,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (5 << 20) + 3,
    ] {
        let data = pattern(len as u64, len);
        assert_eq!(contents(&bytes_buffer(&device, &data)), data, "{len} bytes");
    }
}

#[test]
fn the_largest_buffer_works_and_one_byte_more_is_refused() {
    let device = test_device();
    let limit = device.info.max_buffer;
    if limit <= 256 << 20 {
        let data = pattern(1, limit as usize);
        assert_eq!(contents(&bytes_buffer(&device, &data)), data);
    }
    let refused = Buffer::lazy(device.clone(), (DType::U8, limit + 1)).err();
    let expected = Error::TooLarge {
        requested: limit + 1,
        limit,
        device: device.id(),
    };
    assert_eq!(refused, Some(expected));
}

#[test]
fn views_share_the_storage_at_any_offset() {
    let device = test_device();
    let data = pattern(2, 1000);
    let whole = bytes_buffer(&device, &data);
    for (offset, count) in [(0, 1000), (1, 3), (3, 5), (7, 256), (997, 3), (1000, 0)] {
        let view = whole.view(offset, count).unwrap();
        assert_eq!(
            contents(&view),
            data[offset as usize..(offset + count) as usize]
        );
        assert!(view.same_storage(&whole));
    }
    let inner = whole.view(10, 100).unwrap().view(5, 20).unwrap();
    inner.write(0, &[7; 20]).unwrap();
    let mut expected = data.clone();
    expected[15..35].fill(7);
    assert_eq!(contents(&whole), expected);
}

#[test]
fn a_write_leaves_its_neighbours_alone() {
    let device = test_device();
    let mut model = pattern(3, 64);
    let whole = bytes_buffer(&device, &model);
    for (offset, len) in [(1, 1), (2, 2), (3, 6), (4, 4), (61, 3), (5, 50), (0, 63)] {
        let data = pattern(offset as u64 + 100, len);
        whole.write(offset as u64, &data).unwrap();
        model[offset..offset + len].copy_from_slice(&data);
        assert_eq!(contents(&whole), model, "{len} bytes at {offset}");
    }
}

#[test]
fn a_lazy_buffer_takes_no_memory_and_cannot_be_read() {
    let device = test_device();
    let lazy = Buffer::lazy(device.clone(), (DType::F32, 100)).unwrap();
    let view = lazy.view(10, 20).unwrap();
    assert!(!lazy.is_allocated());
    assert_eq!(lazy.read(0, 100).err(), Some(Error::NotAllocated));
    view.write(0, &[1; 80]).unwrap();
    assert!(lazy.is_allocated());
    let mut expected = vec![0; 400];
    expected[40..120].fill(1);
    assert_eq!(contents(&lazy), expected);
}

#[test]
fn fresh_memory_never_shows_what_was_there_before() {
    let device = test_device();
    for bytes in [64u64, 4096, 3 << 20] {
        let marked: Vec<Buffer> = (0..8)
            .map(|_| bytes_buffer(&device, &vec![0xAB; bytes as usize]))
            .collect();
        drop(marked);
        for _ in 0..8 {
            let fresh = Buffer::lazy(device.clone(), (DType::U8, bytes)).unwrap();
            fresh.ensure_allocated().unwrap();
            assert!(contents(&fresh).iter().all(|byte| *byte == 0));
        }
        let partly = Buffer::lazy(device.clone(), (DType::U8, bytes)).unwrap();
        partly.write(bytes - 3, &[1, 2, 3]).unwrap();
        assert_eq!(
            contents(&partly)[..bytes as usize - 3],
            vec![0; bytes as usize - 3]
        );
    }
}

#[test]
fn copies_work_between_any_two_places() {
    let device = test_device();
    for (from, to, len) in [
        (0, 0, 100),
        (1, 2, 33),
        (4, 8, 64),
        (3, 3, 1),
        (0, 1, 100_000),
    ] {
        let size = 200_000;
        let source = bytes_buffer(&device, &pattern(5, size));
        let target = bytes_buffer(&device, &pattern(6, size));
        source
            .view(from, len)
            .unwrap()
            .copy_to(&target.view(to, len).unwrap())
            .unwrap();
        let mut expected = pattern(6, size);
        let (from, to, len) = (from as usize, to as usize, len as usize);
        expected[to..to + len].copy_from_slice(&pattern(5, size)[from..from + len]);
        assert_eq!(
            contents(&target),
            expected,
            "{len} bytes from {from} to {to}"
        );
    }
}

#[test]
fn a_copy_within_one_storage_works_and_one_onto_itself_is_refused() {
    let device = test_device();
    for size in [1000usize, 3 << 20] {
        let mut model = pattern(7, size);
        let whole = bytes_buffer(&device, &model);
        let (left, right) = (whole.view(1, 300).unwrap(), whole.view(303, 300).unwrap());
        left.copy_to(&right).unwrap();
        model.copy_within(1..301, 303);
        assert_eq!(contents(&whole), model);
        let beside = whole.view(200, 300).unwrap();
        assert_eq!(left.copy_to(&beside), Err(Error::Overlap));
        assert_eq!(whole.copy_to(&whole), Err(Error::Overlap));
        assert_eq!(contents(&whole), model);
    }
}

#[test]
fn unlike_buffers_are_not_copied() {
    let device = test_device();
    let floats = Buffer::from_bytes(device.clone(), DType::F32, &[0; 16]).unwrap();
    let integers = Buffer::from_bytes(device.clone(), DType::S32, &[0; 16]).unwrap();
    let fewer = floats.view(0, 3).unwrap();
    let expected = Error::TypeMismatch {
        expected: DType::S32,
        actual: DType::F32,
    };
    assert_eq!(floats.copy_to(&integers), Err(expected));
    let expected = Error::ShapeMismatch {
        expected: 3,
        actual: 4,
    };
    assert_eq!(floats.copy_to(&fewer), Err(expected));
}

#[test]
fn a_read_shows_what_was_there_when_it_began() {
    let device = test_device();
    let old = pattern(8, 1 << 20);
    let buffer = bytes_buffer(&device, &old);
    let pending = buffer.start_read(0, buffer.count(), None).unwrap();
    buffer.write(0, &pattern(9, 1 << 20)).unwrap();
    let mut bytes = vec![0; old.len()];
    buffer.finish_read(pending, &mut bytes, None).unwrap();
    assert_eq!(bytes[..], old[..]);
}

#[test]
fn fills_repeat_their_element() {
    let device = test_device();
    for (dtype, bits) in [
        (DType::U8, 0x5A),
        (DType::F16, 0x3C00),
        (DType::F32, 0x3F80_0001),
        (DType::S64, u64::MAX - 1),
    ] {
        let size = dtype.size() as usize;
        let buffer = Buffer::from_bytes(device.clone(), dtype, &vec![9; 40 * size]).unwrap();
        buffer.view(3, 35).unwrap().fill(bits).unwrap();
        let mut expected = vec![9; 40 * size];
        for element in expected[3 * size..38 * size].chunks_mut(size) {
            element.copy_from_slice(&bits.to_ne_bytes()[..size]);
        }
        assert_eq!(contents(&buffer), expected, "{dtype}");
    }
}

#[test]
fn a_call_about_no_elements_is_checked_and_changes_nothing() {
    type Call = fn(&Buffer) -> Result<(), Error>;
    let calls: [(&str, Call); 9] = [
        ("write", |lazy| lazy.write(3, &[])),
        ("write at the end", |lazy| lazy.write(10, &[])),
        ("fill", |lazy| lazy.view(10, 0)?.fill(7)),
        ("copy to", |lazy| {
            bytes_buffer(lazy.device(), &[]).copy_to(&lazy.view(4, 0)?)
        }),
        ("copy from", |lazy| {
            lazy.view(4, 0)?
                .copy_to(&bytes_buffer(lazy.device(), &[1]).view(1, 0)?)
        }),
        ("copy within", |lazy| {
            lazy.view(4, 0)?.copy_to(&lazy.view(9, 0)?)
        }),
        ("read", |lazy| {
            lazy.read(10, 0).map(|bytes| assert!(bytes.is_empty()))
        }),
        ("duplicate", |lazy| {
            let none = lazy.view(10, 0)?;
            none.duplicate().map(|copy| assert_eq!(copy.bytes(), 0))
        }),
        ("convert", |lazy| {
            let none = lazy.view(10, 0)?;
            let converted = none.convert(none.like(DType::F32))?;
            converted.read(0, 0).map(|bytes| assert!(bytes.is_empty()))
        }),
    ];
    let device = test_device();
    let pool = Pool::new(device.clone(), (DType::U8, 10).into(), 1, None).unwrap();
    for (name, call) in calls {
        let lazy = Buffer::lazy(device.clone(), (DType::U8, 10)).unwrap();
        assert_eq!(call(&lazy), Ok(()), "{name}");
        assert!(!lazy.is_allocated(), "{name}");
        assert_eq!(lazy.read(0, 1).err(), Some(Error::NotAllocated), "{name}");
        lazy.fill(5).unwrap();
        assert_eq!(call(&lazy), Ok(()), "{name}");
        assert_eq!(contents(&lazy), [5; 10], "{name}");
        // Lent memory stays unreadable until it is written.
        let lent = pool.check_out(&Default::default()).unwrap();
        assert_eq!(call(&lent), Ok(()), "{name}");
        assert_eq!(lent.read(0, 1).err(), Some(Error::NotAllocated), "{name}");
        pool.check_in(&lent, true).unwrap();
        assert_eq!(call(&lent), Err(Error::Stale), "{name}");
    }
    let lazy = Buffer::lazy(device.clone(), (DType::U8, 10)).unwrap();
    let outside = Error::OutOfBounds {
        offset: 11,
        count: 0,
        size: 10,
    };
    assert_eq!(lazy.write(11, &[]), Err(outside.clone()));
    assert_eq!(lazy.read(11, 0).err(), Some(outside));
    // A buffer of zero bytes is not counted.
    let none = Buffer::lazy(device.clone(), (DType::F32, 0)).unwrap();
    assert_eq!((none.fill(1), none.ensure_allocated()), (Ok(()), Ok(())));
    let iota = Buffer::iota(device.clone(), (DType::F32, 0)).unwrap();
    let made = Buffer::from_bytes(device.clone(), DType::F32, &[]).unwrap();
    assert!([&none, &iota, &made].iter().all(|none| none.is_allocated()));
    // `ensure_allocated` on any part of the storage allocates the storage.
    lazy.view(0, 0).unwrap().ensure_allocated().unwrap();
    assert_eq!(contents(&lazy), [0; 10]);
}

/// Memory of this size that was written before is used again.
fn reused(device: &std::sync::Arc<ex_cubecl_core::Device>, len: usize) -> Buffer {
    drop(bytes_buffer(device, &vec![0xAA; len]));
    Buffer::lazy(device.clone(), (DType::U8, len as u64)).unwrap()
}

#[test]
fn bytes_behind_those_that_were_written_first_are_zero() {
    let device = test_device();
    const LEN: usize = 100_003;
    let data = pattern(3, LEN);
    for ends in [&[LEN][..], &[7, 50_001, LEN], &[9, 20, LEN]] {
        let buffer = reused(&device, LEN);
        let mut start = 0;
        for end in ends {
            buffer.write(start as u64, &data[start..*end]).unwrap();
            // The next part overlaps this one.
            start = end - 3;
        }
        assert_eq!(contents(&buffer), data, "{ends:?}");
    }
    // What is left out reads as zeros, whichever call comes next.
    let half = LEN / 2;
    let expected = |end: usize| [&data[..half], &vec![0; end - half]].concat();
    let partly = || {
        let buffer = reused(&device, LEN);
        assert_eq!(buffer.read(0, 1), Err(Error::NotAllocated));
        buffer.write(0, &data[..half]).unwrap();
        buffer
    };
    assert_eq!(contents(&partly()), expected(LEN));
    let buffer = partly();
    buffer.write(LEN as u64 - 2, &[7, 8]).unwrap();
    assert_eq!(
        contents(&buffer),
        [&expected(LEN - 2)[..], &[7, 8]].concat()
    );
    assert_eq!(contents(&partly().duplicate().unwrap()), expected(LEN));
    let (first, second) = (partly(), reused(&device, LEN));
    first.copy_to(&second).unwrap();
    assert_eq!(contents(&second), expected(LEN));
    let buffer = partly();
    buffer
        .view(0, 2)
        .unwrap()
        .copy_to(&buffer.view(LEN as u64 - 2, 2).unwrap())
        .unwrap();
    assert_eq!(
        contents(&buffer),
        [&expected(LEN - 2)[..], &data[..2]].concat()
    );
    let buffer = partly();
    buffer.ensure_allocated().unwrap();
    buffer.write(half as u64, &data[half..]).unwrap();
    assert_eq!(contents(&buffer), data);
}
