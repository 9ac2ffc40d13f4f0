use super::super::{convert, iota, supports_u64};
use super::{Client, DEVICES, Page, on_stream};
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::numeric::samples::{Random, samples};
use ex_cubecl_core::numeric::{convert_bytes, iota_bytes};

const RANDOM: usize = 100_000;
/// Bytes before and after the converted elements, which must not change.
const MARGIN: usize = 64;

fn elements(dtype: DType, random: &mut Random) -> Vec<u8> {
    let size = dtype.size() as usize;
    let bits = samples(dtype, RANDOM, random);
    bits.iter()
        .flat_map(|bits| bits.to_le_bytes().into_iter().take(size))
        .collect()
}

fn supported(client: &Client, dtype: DType) -> bool {
    dtype.size() < 8 || supports_u64(client)
}

/// A page of random bytes, with room for `bytes` bytes from `offset` on and a margin around them.
fn room(random: &mut Random, offset: usize, bytes: usize) -> Vec<u8> {
    random.bytes((offset + bytes + MARGIN).next_multiple_of(256))
}

fn check_pair(client: &Client, random: &mut Random, from: DType, to: DType) {
    let input = elements(from, random);
    let count = input.len() / from.size() as usize;
    let expected = convert_bytes(from, to, &input);
    let source = random.below(MARGIN) * from.size() as usize;
    let mut model = room(random, source, input.len());
    model[source..source + input.len()].copy_from_slice(&input);
    let src = Page::new(client, model);
    // The first and the last element may share a word with neighbouring bytes.
    for (start, less) in [
        (0, 0),
        (random.below(MARGIN), 0),
        (random.below(MARGIN), 1 + random.below(5)),
    ] {
        let (target, count) = (start * to.size() as usize, count - less);
        let mut dst = Page::new(client, room(random, target, expected.len()));
        convert(
            client,
            src.at(source),
            from,
            dst.at(target),
            to,
            count as u64,
        )
        .unwrap();
        let bytes = count * to.size() as usize;
        dst.model[target..target + bytes].copy_from_slice(&expected[..bytes]);
        dst.check(client, &format!("{from} to {to} at {target}"));
    }
}

#[test]
fn conversions_give_the_bits_of_the_host() {
    for client in DEVICES.iter() {
        let mut random = Random(11);
        for from in DType::all().filter(|dtype| supported(client, *dtype)) {
            for to in DType::all().filter(|dtype| supported(client, *dtype)) {
                on_stream(|| check_pair(client, &mut random, from, to));
            }
        }
    }
}

#[test]
fn counting_gives_the_bits_of_the_host() {
    for client in DEVICES.iter() {
        let mut random = Random(13);
        for dtype in DType::all().filter(|dtype| supported(client, *dtype)) {
            for count in [1, 2, 3, 300, 70_001] {
                let offset = random.below(MARGIN) * dtype.size() as usize;
                let expected = iota_bytes(dtype, count);
                on_stream(|| {
                    let mut page = Page::new(client, room(&mut random, offset, expected.len()));
                    iota(client, page.at(offset), count, dtype).unwrap();
                    page.model[offset..offset + expected.len()].copy_from_slice(&expected);
                    page.check(client, &format!("{count} {dtype} at {offset}"));
                });
            }
        }
    }
}
