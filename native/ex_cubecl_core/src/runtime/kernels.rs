//! The kernels, and the only place that launches any. They work on 32-bit words with integer
//! arithmetic, so that each device gives the same bits for each type, also for those that it
//! cannot compute with. A thread owns one word (or one 64-bit element) of the destination: bytes
//! of others in that word are put back as they were.

mod words;

use cubecl::prelude::*;
use cubecl::server::Handle;

/// Bindings start at multiples of this on every runtime.
const ALIGNMENT: u64 = 256;
const THREADS: u32 = 256;
const MAX_CUBES: u32 = 65_535;
/// Bytes of the destination that one launch goes over. Inside a launch 32-bit numbers suffice.
const CHUNK: u64 = 1 << 30;

pub type Launched = std::result::Result<(), String>;

/// A part of a page that a kernel may bind: `words` words from an aligned start on. What is worked
/// on begins `offset` bytes behind that start.
#[derive(Clone)]
pub struct Window {
    pub handle: Handle,
    pub words: u32,
    pub offset: u32,
}

impl Window {
    /// The window around `len` bytes that begin `skip` bytes behind this one's offset.
    fn part(&self, skip: u64, len: u64) -> Result<Window, String> {
        let own = 4 * u64::from(self.words);
        let first = u64::from(self.offset) + skip;
        let start = first / ALIGNMENT * ALIGNMENT;
        let end = (first + len).next_multiple_of(4);
        let words = (end - start) / 4;
        if end > own {
            return Err(format!(
                "a kernel over {words} words from word {}",
                start / 4
            ));
        }
        let rest = own - end;
        Ok(Window {
            handle: self.handle.clone().offset_start(start).offset_end(rest),
            words: words as u32,
            offset: (first - start) as u32,
        })
    }

    fn argument<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `part` checked that the handle has this many words; every index that a kernel
        // uses is below that, or is compared with it first.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.words as usize) }
    }
}

/// The words that some bytes touch, and which bits of the first and the last word are theirs.
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
}

/// Cubes for so many threads; kernels leave those out that are too many.
fn cubes(threads: u32) -> CubeCount {
    let cubes = threads.div_ceil(THREADS);
    let rows = cubes.div_ceil(MAX_CUBES);
    CubeCount::Static(cubes.div_ceil(rows), rows, 1)
}

/// Work that is too much for one launch, as (bytes to skip, length) of its parts.
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
) -> Launched {
    let pattern = match size {
        1 => (pattern & 0xFF) * 0x0101_0101_0101_0101,
        2 => (pattern & 0xFFFF) * 0x0001_0001_0001_0001,
        4 => (pattern & 0xFFFF_FFFF) * 0x0000_0001_0000_0001,
        _ => pattern,
    };
    for (skip, len) in chunks(len) {
        let part = dst.part(skip, len)?;
        let touched = Touched::new(part.offset.into(), len);
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
            );
        }
    }
    Ok(())
}

/// Copies `len` bytes between windows that share no byte, whatever their alignment.
pub fn copy<R: Runtime>(client: &ComputeClient<R>, src: Window, dst: Window, len: u64) -> Launched {
    for (skip, len) in chunks(len) {
        let (from, to) = (src.part(skip, len)?, dst.part(skip, len)?);
        let touched = Touched::new(to.offset.into(), len);
        let source = Source::new(from.offset.into(), to.offset.into());
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
                from.words,
                source.shift,
                touched.first,
                touched.words,
                touched.head,
                touched.tail,
            );
        }
    }
    Ok(())
}

/// Copies `len` bytes inside one window, from one place behind its offset to another. The two
/// ranges share no byte. One buffer must not be bound twice where a launch writes to it.
pub fn copy_within<R: Runtime>(
    client: &ComputeClient<R>,
    window: Window,
    from: u32,
    to: u32,
    len: u64,
) -> Launched {
    for (skip, len) in chunks(len) {
        let (from, to) = (u64::from(from) + skip, u64::from(to) + skip);
        let start = from.min(to);
        let both = window.part(start, from.max(to) - start + len)?;
        let (from, to) = (
            u64::from(both.offset) + from - start,
            u64::from(both.offset) + to - start,
        );
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
                both.words,
                source.shift,
                touched.first,
                touched.words,
                touched.head,
                touched.tail,
            );
        }
    }
    Ok(())
}

/// Where the first word of a destination comes from.
struct Source {
    /// One before zero where the word's first bytes are not among those that are copied.
    first: u32,
    /// Bits by which the bytes of a word of the destination are displaced in the source.
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

pub fn iota<R: Runtime>(
    _c: &ComputeClient<R>,
    _w: Window,
    _n: u64,
    _d: crate::dtype::DType,
) -> Launched {
    Err("iota: not there yet".into())
}
pub fn convert<R: Runtime>(
    _c: &ComputeClient<R>,
    _a: Window,
    _f: crate::dtype::DType,
    _b: Window,
    _t: crate::dtype::DType,
    _n: u64,
) -> Launched {
    Err("convert: not there yet".into())
}
pub fn supports_u64<R: Runtime>(_c: &ComputeClient<R>) -> bool {
    true
}
