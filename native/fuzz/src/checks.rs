//! The properties that must hold for any input bytes, for the fuzz targets and for the test that
//! runs them over their corpora.

use std::sync::Arc;

use ex_cubecl_core::dtype::Kind;
use ex_cubecl_core::numeric::{convert_bits, convert_bytes};
use ex_cubecl_core::registry;
use ex_cubecl_core::span::{Span, byte_count};
use ex_cubecl_core::{Buffer, DType, Device, Label, Spec, element};

/// Reads numbers from the input until it ends.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// A size that is small, huge or at a limit, to find errors in bounds checks.
    fn size(&mut self) -> Option<u64> {
        let word = self.word()?;
        Some(match word >> 62 {
            0 => word & 0xFF,
            1 => u64::MAX - (word & 0xFF),
            2 => (1u64 << (word & 63))
                .wrapping_add((word >> 8) & 3)
                .wrapping_sub(1),
            _ => word,
        })
    }

    fn dtype(&mut self) -> Option<DType> {
        let at = usize::from(self.byte()?) % 12;
        DType::all().nth(at)
    }
}

/// Shapes and nested spans, compared with arithmetic that cannot overflow.
pub fn spans(data: &[u8]) {
    let mut input = Input(data);
    while let Some(()) = span(&mut input) {}
}

fn span(input: &mut Input) -> Option<()> {
    let dims = input.byte()? % 6;
    let shape: Arc<[u64]> = (0..dims).map(|_| input.size()).collect::<Option<_>>()?;
    let dtype = input.dtype()?;
    let spec = Spec {
        dtype,
        shape: shape.clone(),
        label: Label::default(),
        persistent: false,
    };
    let exact = shape
        .iter()
        .try_fold(1u128, |n, dim| n.checked_mul(u128::from(*dim)));
    let exact = if shape.contains(&0) { Some(0) } else { exact };
    let fits = exact.and_then(|n| n.checked_mul(u128::from(dtype.size())));
    let fits = fits.filter(|bytes| *bytes <= i64::MAX as u128);
    assert_eq!(spec.bytes().map(u128::from), fits);

    let mut within = Span::whole(spec.bytes().unwrap_or(input.size()? >> 1));
    for _ in 0..4 {
        let (offset, count, unit) = (input.size()?, input.size()?, input.dtype()?.size());
        let end = (u128::from(offset) + u128::from(count)) * u128::from(unit);
        let part = within.narrow(offset, count, unit);
        assert_eq!(part.is_ok(), end <= u128::from(within.len));
        if let Ok(part) = part {
            assert!(part.offset >= within.offset && part.end() <= within.end());
            assert_eq!(part.len, count * unit);
            assert_eq!(part.overlaps(within), part.len > 0);
            within = part;
        }
    }
    let (count, size) = (input.size()?, input.dtype()?.size());
    let exact = u128::from(count) * u128::from(size);
    assert_eq!(byte_count(count, size).is_some(), exact <= i64::MAX as u128);
    Some(())
}

/// Elements from numbers and conversions, compared with the arithmetic of this machine.
pub fn elements(data: &[u8]) {
    let mut input = Input(data);
    while let Some(()) = element(&mut input) {}
}

fn element(input: &mut Input) -> Option<()> {
    let (from, to, bits) = (input.dtype()?, input.dtype()?, input.word()?);
    let mask = u64::MAX >> (64 - 8 * from.size());
    let out = convert_bits(from.into(), to.into(), bits & mask);
    assert_eq!(
        out & !(u64::MAX >> (64 - 8 * to.size())),
        0,
        "bits past the type's"
    );
    let bytes = &(bits & mask).to_le_bytes()[..from.size() as usize];
    let expected = &out.to_le_bytes()[..to.size() as usize];
    assert_eq!(convert_bytes(from, to, bytes), expected);
    if from == to {
        assert_eq!(out, bits & mask, "the same type is the same bits");
    }

    let value = f64::from_bits(bits);
    if !value.is_nan() {
        let narrow = u64::from((value as f32).to_bits());
        assert_eq!(element::of_float(DType::F32, value), Some(narrow));
        assert_eq!(element::of_float(DType::F64, value), Some(bits));
        assert_eq!(
            convert_bits(DType::F64.into(), DType::F32.into(), bits),
            narrow
        );
    }
    let single = f32::from_bits(bits as u32);
    if !single.is_nan() {
        let half = u64::from(half::f16::from_f32(single).to_bits());
        assert_eq!(
            convert_bits(DType::F32.into(), DType::F16.into(), bits & 0xFFFF_FFFF),
            half
        );
        let brain = u64::from(half::bf16::from_f32(single).to_bits());
        assert_eq!(
            convert_bits(DType::F32.into(), DType::Bf16.into(), bits & 0xFFFF_FFFF),
            brain
        );
    }

    let wide = i128::from(bits as i64) << (input.byte()? % 3);
    let (size, held) = (8 * to.size() as u32, element::of_int(to, wide));
    match to.kind() {
        Kind::Float => assert!(held.is_some() || i64::try_from(wide).is_err()),
        Kind::Signed => assert_eq!(
            held.is_some(),
            (-(1i128 << (size - 1))..1i128 << (size - 1)).contains(&wide)
        ),
        Kind::Unsigned => assert_eq!(held.is_some(), (0..1i128 << size).contains(&wide)),
    }
    if let (Some(held), true) = (held, to.kind() != Kind::Float) {
        assert_eq!(held, wide as u64 & (u64::MAX >> (64 - size)));
    }
    Some(())
}

/// Buffers that are allocated and freed on a real device: each keeps its bytes, none overlaps
/// another, and nothing is left at the end.
pub fn allocator(data: &[u8]) {
    ex_cubecl_runtime::install();
    let Ok(device) = registry::default_id().and_then(registry::open) else {
        return;
    };
    device.set_limit(Some(64 << 20));
    let mut input = Input(data);
    let mut live: Vec<(Buffer, u64)> = Vec::new();
    for tick in 0..400 {
        if come_or_go(&mut input, &device, &mut live, tick).is_none() {
            break;
        }
    }
    look(&device, &live);
    drop(live);
    assert_eq!(device.account().live_bytes, 0);
    assert_eq!(device.account().live_buffers, 0);
}

fn come_or_go(
    input: &mut Input,
    device: &Arc<Device>,
    live: &mut Vec<(Buffer, u64)>,
    tick: u64,
) -> Option<()> {
    match input.byte()? {
        0..=3 => look(device, live),
        4..=7 => assert!(device.trim().is_ok()),
        8..=100 if !live.is_empty() => {
            let at = usize::from(input.byte()?) % live.len();
            let (buffer, value) = live.swap_remove(at);
            same(&buffer, value);
        }
        kind => {
            // From one byte to more than a slab holds.
            let bytes = (u64::from(input.byte()?) + 1) << (kind % 14);
            let dtype = DType::U8;
            let Ok(buffer) = Buffer::lazy(device.clone(), (dtype, bytes)) else {
                return Some(());
            };
            match buffer.fill(tick & 0xFF) {
                Ok(()) => live.push((buffer, tick & 0xFF)),
                Err(error) => assert!(device.account().live_bytes + bytes > 64 << 20, "{error}"),
            }
        }
    }
    Some(())
}

fn same(buffer: &Buffer, value: u64) {
    let read = buffer.read(0, buffer.count());
    assert!(read.is_ok_and(|bytes| bytes.iter().all(|byte| u64::from(*byte) == value)));
}

fn look(device: &Arc<Device>, live: &[(Buffer, u64)]) {
    let (pages, entries) = device.map(usize::MAX);
    let places = entries
        .iter()
        .filter_map(|entry| entry.location.map(|location| (location, entry.bytes)));
    let mut places: Vec<_> = places
        .map(|(place, bytes)| (place.page, place.offset, bytes))
        .collect();
    assert_eq!(places.len(), live.len());
    places.sort_unstable();
    for pair in places.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].1 + pair[0].2 <= pair[1].1);
    }
    for (page, offset, bytes) in places {
        let page = pages.iter().find(|info| info.page == page);
        assert!(page.is_some_and(|page| offset + bytes <= page.bytes));
    }
    let all: u64 = live.iter().map(|(buffer, _)| buffer.bytes()).sum();
    assert_eq!(device.account().live_bytes, all);
}
