//! Random sequences of calls, compared with a model of plain bytes. Whichever storages buffers
//! share, each must read the same bytes as the model.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

mod common;

use common::{contents, pattern, test_device};
use ex_cubecl_core::{Buffer, DType, Error};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Call {
    New {
        dtype: usize,
        count: u16,
        seed: u64,
    },
    Lazy {
        dtype: usize,
        count: u16,
    },
    View {
        of: usize,
        offset: u16,
        count: u16,
    },
    Slice {
        of: usize,
        offset: u16,
        len: u16,
    },
    Share {
        of: usize,
    },
    Duplicate {
        of: usize,
    },
    Write {
        of: usize,
        offset: u16,
        count: u16,
        seed: u64,
    },
    Fill {
        of: usize,
        bits: u64,
    },
    Copy {
        from: usize,
        to: usize,
    },
    Read {
        of: usize,
        offset: u16,
        count: u16,
    },
    Drop {
        of: usize,
    },
}

fn call() -> impl Strategy<Value = Call> {
    use Call::*;
    let of = 0usize..16;
    prop_oneof![
        (0usize..12, 0u16..200, any::<u64>()).prop_map(|(dtype, count, seed)| New {
            dtype,
            count,
            seed
        }),
        (0usize..12, 0u16..200).prop_map(|(dtype, count)| Lazy { dtype, count }),
        (of.clone(), 0u16..200, 0u16..200).prop_map(|(of, offset, count)| View {
            of,
            offset,
            count
        }),
        (of.clone(), 0u16..900, 0u16..900).prop_map(|(of, offset, len)| Slice { of, offset, len }),
        of.clone().prop_map(|of| Share { of }),
        of.clone().prop_map(|of| Duplicate { of }),
        (of.clone(), 0u16..200, 0u16..200, any::<u64>()).prop_map(|(of, offset, count, seed)| {
            Write {
                of,
                offset,
                count,
                seed,
            }
        }),
        (of.clone(), any::<u64>()).prop_map(|(of, bits)| Fill { of, bits }),
        (of.clone(), of.clone()).prop_map(|(from, to)| Copy { from, to }),
        (of.clone(), 0u16..200, 0u16..200).prop_map(|(of, offset, count)| Read {
            of,
            offset,
            count
        }),
        of.prop_map(|of| Drop { of }),
    ]
}

/// A buffer and its model: a range of the bytes of a storage.
struct Pair {
    real: Buffer,
    storage: usize,
    start: usize,
    len: usize,
}

/// The bytes of each storage; `None` before the first write.
#[derive(Default)]
struct World {
    storages: Vec<(usize, Option<Vec<u8>>)>,
    pairs: Vec<Pair>,
}

impl World {
    fn add(&mut self, real: Buffer, bytes: Option<Vec<u8>>) {
        let len = real.bytes() as usize;
        let bytes = bytes.or((len == 0).then(Vec::new));
        self.storages.push((len, bytes));
        let storage = self.storages.len() - 1;
        self.pairs.push(Pair {
            real,
            storage,
            start: 0,
            len,
        });
    }

    /// A read of zero bytes needs no written content.
    fn expected(&self, pair: &Pair) -> Option<&[u8]> {
        if pair.len == 0 {
            return Some(&[]);
        }
        self.storages[pair.storage]
            .1
            .as_ref()
            .map(|bytes| &bytes[pair.start..pair.start + pair.len])
    }

    /// A write of zero bytes changes nothing: a lazy storage stays unallocated.
    fn change(&mut self, storage: usize, start: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let (len, bytes) = &mut self.storages[storage];
        let bytes = bytes.get_or_insert_with(|| vec![0; *len]);
        bytes[start..start + data.len()].copy_from_slice(data);
    }

    fn apply(&mut self, call: &Call) -> Result<(), TestCaseError> {
        let at = |of: &usize| of % self.pairs.len().max(1);
        match call {
            Call::New { dtype, count, seed } => {
                let dtype = DType::all().nth(*dtype).unwrap();
                let data = pattern(*seed, *count as usize * dtype.size() as usize);
                let real = Buffer::from_bytes(test_device(), dtype, &data).unwrap();
                self.add(real, Some(data));
            }
            Call::Lazy { dtype, count } => {
                let dtype = DType::all().nth(*dtype).unwrap();
                let real = Buffer::lazy(test_device(), (dtype, u64::from(*count))).unwrap();
                self.add(real, None);
            }
            _ if self.pairs.is_empty() => {}
            Call::View { of, offset, count } => self.view(at(of), *offset, *count)?,
            Call::Slice { of, offset, len } => {
                let pair = &self.pairs[at(of)];
                let made = pair.real.slice_bytes((*offset).into(), (*len).into());
                let fits = *offset as usize + *len as usize <= pair.len;
                prop_assert_eq!(made.is_ok(), fits);
                let (storage, start) = (pair.storage, pair.start + *offset as usize);
                self.push_part(made, storage, start);
            }
            Call::Share { of } => {
                let pair = &self.pairs[at(of)];
                let (storage, start) = (pair.storage, pair.start);
                self.push_part(Ok(pair.real.share()), storage, start);
            }
            Call::Duplicate { of } => {
                let pair = &self.pairs[at(of)];
                let made = pair.real.duplicate();
                match self.expected(pair).map(<[u8]>::to_vec) {
                    Some(bytes) => self.add(made.unwrap(), Some(bytes)),
                    None => prop_assert_eq!(made.err(), Some(Error::NotAllocated)),
                }
            }
            Call::Write {
                of,
                offset,
                count,
                seed,
            } => {
                let pair = &self.pairs[at(of)];
                let size = pair.real.dtype().size() as usize;
                let data = pattern(*seed, *count as usize * size);
                let fits = *offset as usize + *count as usize <= pair.len / size;
                prop_assert_eq!(pair.real.write((*offset).into(), &data).is_ok(), fits);
                if fits {
                    let (storage, start) = (pair.storage, pair.start + *offset as usize * size);
                    self.change(storage, start, &data);
                }
            }
            Call::Fill { of, bits } => {
                let pair = &self.pairs[at(of)];
                let size = pair.real.dtype().size() as usize;
                pair.real.fill(*bits).unwrap();
                let data: Vec<u8> = bits.to_ne_bytes()[..size]
                    .iter()
                    .copied()
                    .cycle()
                    .take(pair.len)
                    .collect();
                let (storage, start) = (pair.storage, pair.start);
                self.change(storage, start, &data);
            }
            Call::Copy { from, to } => self.copy(at(from), at(to))?,
            Call::Read { of, offset, count } => {
                let pair = &self.pairs[at(of)];
                let size = pair.real.dtype().size() as usize;
                let (offset, count) = (*offset as usize, *count as usize);
                let read = pair.real.read(offset as u64, count as u64);
                match self.expected(pair) {
                    _ if offset + count > pair.len / size => prop_assert!(read.is_err()),
                    _ if count == 0 => prop_assert_eq!(read, Ok(Vec::new())),
                    None => prop_assert_eq!(read.err(), Some(Error::NotAllocated)),
                    Some(bytes) => {
                        let part = &bytes[offset * size..(offset + count) * size];
                        prop_assert_eq!(&read.unwrap()[..], part);
                    }
                }
            }
            Call::Drop { of } => drop(self.pairs.swap_remove(at(of))),
        }
        Ok(())
    }

    fn view(&mut self, of: usize, offset: u16, count: u16) -> Result<(), TestCaseError> {
        let pair = &self.pairs[of];
        let size = pair.real.dtype().size() as usize;
        let made = pair.real.view(offset.into(), count.into());
        prop_assert_eq!(
            made.is_ok(),
            (offset as usize + count as usize) * size <= pair.len
        );
        let (storage, start) = (pair.storage, pair.start + offset as usize * size);
        self.push_part(made, storage, start);
        Ok(())
    }

    fn push_part(&mut self, made: ex_cubecl_core::Result<Buffer>, storage: usize, start: usize) {
        if let Ok(real) = made {
            let len = real.bytes() as usize;
            self.pairs.push(Pair {
                real,
                storage,
                start,
                len,
            });
        }
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), TestCaseError> {
        let (source, target) = (&self.pairs[from], &self.pairs[to]);
        let alike = source.real.dtype() == target.real.dtype() && source.len == target.len;
        let overlap = source.storage == target.storage
            && source.len > 0
            && source.start < target.start + target.len
            && target.start < source.start + source.len;
        let copied = source.real.copy_to(&target.real);
        let bytes = self.expected(source).map(<[u8]>::to_vec);
        match bytes {
            _ if !alike || overlap => prop_assert!(copied.is_err()),
            None => prop_assert_eq!(copied, Err(Error::NotAllocated)),
            Some(bytes) => {
                prop_assert_eq!(copied, Ok(()));
                let (storage, start) = (target.storage, target.start);
                self.change(storage, start, &bytes);
            }
        }
        Ok(())
    }
}

/// `PROPTEST_CASES` sets a larger number.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn buffers_behave_like_plain_bytes(calls in prop::collection::vec(call(), 1..60)) {
        let mut world = World::default();
        for call in &calls {
            world.apply(call)?;
        }
        for pair in &world.pairs {
            let written = world.storages[pair.storage].1.is_some();
            prop_assert_eq!(pair.real.is_allocated(), written);
            if let Some(bytes) = world.expected(pair) {
                prop_assert_eq!(contents(&pair.real), bytes);
            }
        }
    }
}
