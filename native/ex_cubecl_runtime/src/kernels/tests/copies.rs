use super::super::{copy, copy_within, fill};
use super::{Client, DEVICES, Page, on_stream};
use ex_cubecl_core::numeric::samples::Random;

const BYTES: usize = 4096;
const CASES: usize = 2000;

/// An offset and a length, often short and often at an edge.
fn range(random: &mut Random, size: usize) -> (usize, usize) {
    let longest = [12, 80, BYTES][random.below(3)];
    let len = (random.below(longest) + 1).next_multiple_of(size);
    let offset = match random.below(4) {
        0 => 0,
        1 => BYTES - len,
        _ => random.below(BYTES - len + 1),
    };
    (offset / size * size, len)
}

fn fills(client: &Client, random: &mut Random) {
    let mut page = Page::new(client, random.bytes(BYTES));
    for _ in 0..CASES {
        let size = [1, 2, 4, 8][random.below(4)];
        let (offset, len) = range(random, size);
        let pattern = random.draw();
        fill(client, page.at(offset), len as u64, pattern, size as u32).unwrap();
        for element in page.model[offset..offset + len].chunks_mut(size) {
            element.copy_from_slice(&pattern.to_le_bytes()[..size]);
        }
        page.check(client, &format!("fill {offset} {len} {size}"));
    }
}

fn copies(client: &Client, random: &mut Random) {
    let src = Page::new(client, random.bytes(BYTES));
    let mut dst = Page::new(client, random.bytes(BYTES));
    for _ in 0..CASES {
        let (to, len) = range(random, 1);
        let from = random.below(BYTES - len + 1);
        copy(client, src.at(from), dst.at(to), len as u64).unwrap();
        dst.model[to..to + len].copy_from_slice(&src.model[from..from + len]);
        dst.check(client, &format!("copy {from} to {to}, {len}"));
    }
    src.check(client, "the source");
}

fn copies_within(client: &Client, random: &mut Random) {
    let mut page = Page::new(client, random.bytes(BYTES));
    for _ in 0..CASES {
        let (low, len) = range(random, 2);
        let len = len / 2;
        // Adjacent half of the time: then both ranges can share a word.
        let room = BYTES - low - 2 * len;
        let gap = [0, random.below(room + 1)][random.below(2)];
        let (mut from, mut to) = (low, low + len + gap);
        if random.below(2) == 0 {
            (from, to) = (to, from);
        }
        let base = random.below(from.min(to) + 1);
        let (behind, target) = ((from - base) as u64, (to - base) as u64);
        copy_within(client, page.at(base), behind, target, len as u64).unwrap();
        page.model.copy_within(from..from + len, to);
        page.check(client, &format!("copy {from} to {to}, {len}"));
    }
}

fn on_each_device(test: impl Fn(&Client, &mut Random)) {
    for client in DEVICES.iter() {
        on_stream(|| test(client, &mut Random(7)));
    }
}

#[test]
fn fills_leave_the_bytes_around_them() {
    on_each_device(fills);
}

#[test]
fn copies_take_any_alignment() {
    on_each_device(copies);
}

#[test]
fn copies_inside_one_buffer() {
    on_each_device(copies_within);
}
