//! The built-in kernels and their launches. They work on 32-bit words with integer arithmetic, so
//! that every device gives the same bits for each type, including types that the device cannot
//! compute with. A thread owns one word (or one 64-bit element) of the destination: bytes in that
//! word outside the destination are written back unchanged.

mod convert;
#[cfg(test)]
mod tests;
mod words;

use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;
use cubecl::server::Handle;

use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::numeric::Format;

pub use self::convert::convert_bits;

/// Bindings start at multiples of this on every runtime.
const ALIGNMENT: u64 = 256;
pub const THREADS: u32 = 256;
/// Enough for the largest GPUs, which hold a few hundred thousand threads at a time.
pub const MAX_CUBES: u32 = 8192;
/// Bytes of the destination that one launch covers. Within a launch, 32-bit numbers suffice.
const CHUNK: u64 = 1 << 30;

/// Elements that one launch converts.
const ELEMENTS: u64 = 1 << 27;

pub type LaunchResult = std::result::Result<(), String>;

/// A part of a page that a kernel may bind: `words` words from an aligned start. The data to work
/// on begins `offset` bytes after that start.
#[derive(Clone)]
pub struct Window {
    pub handle: Handle,
    pub words: u64,
    pub offset: u64,
}

impl Window {
    /// The window around `len` bytes that begin `skip` bytes after this window's offset.
    fn part(&self, skip: u64, len: u64) -> Result<Window, String> {
        let first = self.offset + skip;
        let start = first / ALIGNMENT * ALIGNMENT;
        let end = (first + len).next_multiple_of(4);
        let words = (end - start) / 4;
        if end > 4 * self.words || words > u64::from(u32::MAX) {
            return Err(format!(
                "a kernel over {words} words from word {}",
                start / 4
            ));
        }
        let rest = 4 * self.words - end;
        Ok(Window {
            handle: self.handle.clone().offset_start(start).offset_end(rest),
            words,
            offset: first - start,
        })
    }

    fn argument<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `part` checked that the handle has this many words; every index that a kernel
        // uses is below that, or is compared with it first.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.words as usize) }
    }
}

/// The words that a byte range touches, and which bits of the first and the last word belong to the
/// range.
struct Touched {
    first: u32,
    words: u32,
    head: u32,
    tail: u32,
}

impl Touched {
    fn new(offset: u64, len: u64) -> Self {
        let (start, end) = (offset / 4, (offset + len).div_ceil(4));
        Touched {
            first: start as u32,
            words: (end - start) as u32,
            head: u32::MAX << (8 * (offset % 4)),
            tail: u32::MAX >> (8 * (4 * end - offset - len)),
        }
    }

    fn whole(&self) -> bool {
        self.head & self.tail == u32::MAX
    }
}

/// The number of cubes for `words` words, which is limited. If there are more words than threads,
/// each thread handles several.
fn cubes(words: u32) -> CubeCount {
    CubeCount::Static(words.div_ceil(THREADS).min(MAX_CUBES), 1, 1)
}

/// Splits work that is too large for one launch into (bytes to skip, length) of its parts.
fn chunks(len: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len)
        .step_by(CHUNK as usize)
        .map(move |skip| (skip, CHUNK.min(len - skip)))
}

/// Repeats the lowest `size` bytes of `pattern` over `len` bytes. The offset is a multiple of
/// `size`.
pub fn fill<R: Runtime>(
    client: &ComputeClient<R>,
    dst: Window,
    len: u64,
    pattern: u64,
    size: u32,
) -> LaunchResult {
    let pattern = match size {
        1 => (pattern & 0xFF) * 0x0101_0101_0101_0101,
        2 => (pattern & 0xFFFF) * 0x0001_0001_0001_0001,
        4 => (pattern & 0xFFFF_FFFF) * 0x0000_0001_0000_0001,
        _ => pattern,
    };
    for (skip, len) in chunks(len) {
        let part = dst.part(skip, len)?;
        let touched = Touched::new(part.offset, len);
        // SAFETY: the words touched lie inside the window, and no thread goes past them.
        unsafe {
            words::fill::launch_unchecked::<R>(
                client,
                cubes(touched.words),
                CubeDim::new_1d(THREADS),
                part.argument(),
                pattern as u32,
                (pattern >> 32) as u32,
                touched.first,
                touched.words,
                touched.head,
                touched.tail,
                touched.whole(),
            );
        }
    }
    Ok(())
}

/// Copies `len` bytes between windows that share no byte, whatever their alignment.
pub fn copy<R: Runtime>(
    client: &ComputeClient<R>,
    src: Window,
    dst: Window,
    len: u64,
) -> LaunchResult {
    for (skip, len) in chunks(len) {
        let (from, to) = (src.part(skip, len)?, dst.part(skip, len)?);
        let touched = Touched::new(to.offset, len);
        let source = Source::new(from.offset, to.offset);
        // SAFETY: the words touched lie inside the window, and words of the source are compared
        // with its length before they are read.
        unsafe {
            words::copy::launch_unchecked::<R>(
                client,
                cubes(touched.words),
                CubeDim::new_1d(THREADS),
                from.argument(),
                to.argument(),
                source.first,
                from.words as u32,
                source.shift,
                touched.first,
                touched.words,
                touched.head,
                touched.tail,
                touched.whole(),
            );
        }
    }
    Ok(())
}

/// Copies `len` bytes inside one window, from one distance after its offset to another. The two
/// ranges share no byte. A buffer must not be bound twice in a launch that writes to it.
pub fn copy_within<R: Runtime>(
    client: &ComputeClient<R>,
    window: Window,
    from: u64,
    to: u64,
    len: u64,
) -> LaunchResult {
    for (skip, len) in chunks(len) {
        let (from, to) = (from + skip, to + skip);
        let start = from.min(to);
        let both = window.part(start, from.max(to) - start + len)?;
        let (from, to) = (both.offset + from - start, both.offset + to - start);
        let touched = Touched::new(to, len);
        let source = Source::new(from, to);
        // SAFETY: as in `copy`. A word that holds bytes of both ranges is read by one thread and
        // written by another, but the bytes that the reader uses stay as they are.
        unsafe {
            words::copy_within::launch_unchecked::<R>(
                client,
                cubes(touched.words),
                CubeDim::new_1d(THREADS),
                both.argument(),
                source.first,
                both.words as u32,
                source.shift,
                touched.first,
                touched.words,
                touched.head,
                touched.tail,
                touched.whole(),
            );
        }
    }
    Ok(())
}

/// The source words for the first word of a destination.
struct Source {
    /// Wraps to one below zero if the first bytes of the destination's word are not among the
    /// copied ones.
    first: u32,
    /// Bits by which the bytes of a destination word are displaced in the source.
    shift: u32,
}

impl Source {
    fn new(from: u64, to: u64) -> Self {
        let start = (from + 4) - to % 4;
        Source {
            first: ((start / 4) as u32).wrapping_sub(1),
            shift: 8 * (start % 4) as u32,
        }
    }
}

/// Whether 64-bit types can be converted on this device.
pub fn supports_u64<R: Runtime>(client: &ComputeClient<R>) -> bool {
    client
        .properties()
        .supports_type(ElemType::UInt(UIntKind::U64))
}

/// Converts `count` elements between windows that share no byte. The offsets are multiples of the
/// elements' sizes.
pub fn convert<R: Runtime>(
    client: &ComputeClient<R>,
    src: Window,
    from: DType,
    dst: Window,
    to: DType,
    count: u64,
) -> LaunchResult {
    if from == to {
        return copy(client, src, dst, count * to.size());
    }
    for start in (0..count).step_by(ELEMENTS as usize) {
        let count = ELEMENTS.min(count - start);
        let source = src.part(start * from.size(), count * from.size())?;
        let target = dst.part(start * to.size(), count * to.size())?;
        match from.size().max(to.size()) {
            8 => launch_convert::<R, u64>(client, &source, from, &target, to, count),
            _ => launch_convert::<R, u32>(client, &source, from, &target, to, count),
        }
    }
    Ok(())
}

fn launch_convert<R: Runtime, W: Int>(
    client: &ComputeClient<R>,
    src: &Window,
    from: DType,
    dst: &Window,
    to: DType,
    count: u64,
) {
    let targets = Targets::new(dst.offset, count, to);
    // SAFETY: the words touched lie inside the window, and words of the source are compared with
    // its length before they are read.
    unsafe {
        convert::convert::launch_unchecked::<W, R>(
            client,
            cubes(targets.threads),
            CubeDim::new_1d(THREADS),
            src.argument(),
            dst.argument(),
            ((src.offset / from.size()) as u32).wrapping_sub(targets.skip),
            src.words as u32,
            targets.touched.first,
            targets.threads,
            targets.touched.head,
            targets.touched.tail,
            targets.touched.whole(),
            Format::from(from),
            Format::from(to),
        );
    }
}

/// Writes 0, 1, 2, ... as `count` elements.
pub fn iota<R: Runtime>(
    client: &ComputeClient<R>,
    dst: Window,
    count: u64,
    dtype: DType,
) -> LaunchResult {
    if count > 1 << 32 {
        return Err(format!("counting to {count} on the device"));
    }
    for start in (0..count).step_by(ELEMENTS as usize) {
        let count = ELEMENTS.min(count - start);
        let part = dst.part(start * dtype.size(), count * dtype.size())?;
        match dtype.size() {
            8 => launch_iota::<R, u64>(client, &part, start as u32, count, dtype),
            _ => launch_iota::<R, u32>(client, &part, start as u32, count, dtype),
        }
    }
    Ok(())
}

fn launch_iota<R: Runtime, W: Int>(
    client: &ComputeClient<R>,
    dst: &Window,
    start: u32,
    count: u64,
    dtype: DType,
) {
    let targets = Targets::new(dst.offset, count, dtype);
    // SAFETY: the words touched lie inside the window, and no thread goes past them.
    unsafe {
        convert::iota::launch_unchecked::<W, R>(
            client,
            cubes(targets.threads),
            CubeDim::new_1d(THREADS),
            dst.argument(),
            start.wrapping_sub(targets.skip),
            targets.touched.first,
            targets.threads,
            targets.touched.head,
            targets.touched.tail,
            targets.touched.whole(),
            Format::from(DType::U32),
            Format::from(dtype),
        );
    }
}

/// Elements of a destination: a thread writes one word, or one 64-bit element.
struct Targets {
    touched: Touched,
    threads: u32,
    /// Elements in the first word that lie before the destination.
    skip: u32,
}

impl Targets {
    fn new(offset: u64, count: u64, dtype: DType) -> Self {
        let touched = Touched::new(offset, count * dtype.size());
        let words_each = dtype.size().div_ceil(4) as u32;
        Targets {
            threads: touched.words / words_each,
            skip: (offset % 4 / dtype.size()) as u32,
            touched,
        }
    }
}
