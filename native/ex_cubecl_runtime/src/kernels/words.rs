//! Filling and copying. The words are numbered within the window; `head` and `tail` are the bits
//! of the first and the last word that may change.

use cubecl::prelude::*;

const ALL: u32 = u32::MAX;

/// Threads of a launch, which is also the distance in words from one word of a thread to its next.
#[cube]
pub fn stride() -> u32 {
    CUBE_COUNT as u32 * CUBE_DIM
}

#[cube(launch_unchecked)]
pub fn fill(
    dst: &mut Array<u32>,
    even: u32,
    odd: u32,
    first: u32,
    words: u32,
    head: u32,
    tail: u32,
    #[comptime] whole: bool,
) {
    for at in range_stepped(ABSOLUTE_POS as u32, words, stride()) {
        let word = first + at;
        // A window starts at a multiple of eight bytes, so the parity of the word selects the half
        // of an element.
        let value = select(word & 1 == 0, even, odd);
        store(dst, word, value, bits_of(at, words, head, tail), whole);
    }
}

#[cube(launch_unchecked)]
pub fn copy(
    src: &Array<u32>,
    dst: &mut Array<u32>,
    source: u32,
    source_words: u32,
    shift: u32,
    first: u32,
    words: u32,
    head: u32,
    tail: u32,
    #[comptime] whole: bool,
) {
    for at in range_stepped(ABSOLUTE_POS as u32, words, stride()) {
        let value = gather(src, source + at, source_words, shift);
        store(
            dst,
            first + at,
            value,
            bits_of(at, words, head, tail),
            whole,
        );
    }
}

#[cube(launch_unchecked)]
pub fn copy_within(
    data: &mut Array<u32>,
    source: u32,
    source_words: u32,
    shift: u32,
    first: u32,
    words: u32,
    head: u32,
    tail: u32,
    #[comptime] whole: bool,
) {
    for at in range_stepped(ABSOLUTE_POS as u32, words, stride()) {
        let value = gather(data, source + at, source_words, shift);
        store(
            data,
            first + at,
            value,
            bits_of(at, words, head, tail),
            whole,
        );
    }
}

/// Four bytes that begin `shift` bits into a word.
#[cube]
fn gather(src: &Array<u32>, word: u32, words: u32, shift: u32) -> u32 {
    let mut value = load(src, word, words);
    if shift > 0 {
        value = (value >> shift) | (load(src, word + 1, words) << (32 - shift));
    }
    value
}

/// A word, or zero past the end of the source: only bytes that are masked out are missing there.
#[cube]
pub fn load(src: &Array<u32>, word: u32, words: u32) -> u32 {
    let mut value = 0u32;
    if word < words {
        value = src[word as usize];
    }
    value
}

/// The bits that may change in word number `at` of `words`.
#[cube]
pub fn bits_of(at: u32, words: u32, head: u32, tail: u32) -> u32 {
    select(at == 0, head, ALL) & select(at + 1 == words, tail, ALL)
}

/// Writes a word, or only its bits that may change. `whole` means that all bits of every word may
/// change: software devices would otherwise read each word before they write it.
#[cube]
// The first condition is evaluated when the kernel is compiled, the second while it runs.
#[allow(clippy::if_same_then_else)]
pub fn store(dst: &mut Array<u32>, word: u32, value: u32, bits: u32, #[comptime] whole: bool) {
    let word = word as usize;
    if comptime!(whole) {
        dst[word] = value;
    } else if bits == ALL {
        dst[word] = value;
    } else {
        dst[word] = (dst[word] & !bits) | (value & bits);
    }
}
