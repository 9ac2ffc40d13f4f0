//! The live allocations and their owners: one record for each allocation.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::span::byte_count;

/// The number of maps over which records are spread, so that callers rarely wait for each other.
const SHARDS: usize = 16;

/// The owner, tag and stacktrace of an allocation. Core does not interpret them: it only keeps,
/// sums and returns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    pub owner: u64,
    pub tag: Option<Arc<[u8]>>,
    pub trace: Option<Arc<[u8]>>,
}

/// The description of a buffer to be made.
#[derive(Debug, Clone)]
pub struct Spec {
    pub dtype: DType,
    pub shape: Arc<[u64]>,
    pub label: Label,
    /// Whether the buffer is long-lived: it is allocated apart from short-lived ones.
    pub persistent: bool,
}

impl Spec {
    /// The number of elements; `None` if it does not fit in 64 bits.
    pub fn count(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            Some(0)
        } else {
            self.shape
                .iter()
                .try_fold(1u64, |n, dim| n.checked_mul(*dim))
        }
    }

    pub fn bytes(&self) -> Option<u64> {
        byte_count(self.count()?, self.dtype.size())
    }
}

/// One dimension, without an owner.
impl From<(DType, u64)> for Spec {
    fn from((dtype, count): (DType, u64)) -> Self {
        Spec {
            dtype,
            shape: Arc::new([count]),
            label: Label::default(),
            persistent: false,
        }
    }
}

/// The location of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The same number for all allocations on one page, as long as the page exists.
    pub page: u64,
    pub page_bytes: u64,
    /// The byte offset within the page.
    pub offset: u64,
}

/// One live allocation.
#[derive(Debug, Clone)]
pub struct Record {
    /// The storage that holds it.
    pub id: u64,
    pub device: DeviceId,
    pub bytes: u64,
    pub spec: Spec,
    pub since: Instant,
    /// `None` for an allocation of zero bytes, and until its memory is allocated.
    pub location: Option<Location>,
}

/// The total bytes and the number of the allocations of one owner or one tag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub bytes: u64,
    pub buffers: u64,
}

#[derive(Debug, Default)]
pub struct Report {
    /// The largest allocations, in descending order.
    pub largest: Vec<Record>,
    /// In descending order of bytes, as is `by_tag`.
    pub by_owner: Vec<(u64, Sum)>,
    pub by_tag: Vec<(Option<Arc<[u8]>>, Sum)>,
}

#[derive(Debug, Default)]
pub(crate) struct AllocationTracker {
    shards: [Mutex<HashMap<u64, Record>>; SHARDS],
}

impl AllocationTracker {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Record>> {
        &self.shards[id as usize % SHARDS]
    }

    pub fn insert(&self, record: Record) {
        self.shard(record.id).lock().insert(record.id, record);
    }

    pub fn set_location(&self, id: u64, location: Location) {
        if let Some(record) = self.shard(id).lock().get_mut(&id) {
            record.location = Some(location);
        }
    }

    pub fn remove(&self, id: u64) -> Option<Record> {
        self.shard(id).lock().remove(&id)
    }

    /// The sums of all records by owner and tag, and the `most` largest records.
    pub fn report(&self, most: usize) -> Report {
        let mut sizes = Vec::new();
        let mut by_owner: HashMap<u64, Sum> = HashMap::new();
        let mut by_tag: HashMap<Option<Arc<[u8]>>, Sum> = HashMap::new();
        for shard in &self.shards {
            for record in shard.lock().values() {
                sizes.push((record.bytes, record.id));
                add(&mut by_owner, record.spec.label.owner, record.bytes);
                add(&mut by_tag, record.spec.label.tag.clone(), record.bytes);
            }
        }
        sizes.sort_unstable_by_key(|(bytes, id)| (std::cmp::Reverse(*bytes), *id));
        sizes.truncate(most);
        let find = |(_, id): (u64, u64)| self.shard(id).lock().get(&id).cloned();
        Report {
            largest: sizes.into_iter().filter_map(find).collect(),
            by_owner: sorted(by_owner),
            by_tag: sorted(by_tag),
        }
    }
}

fn add<K: Hash + Eq>(sums: &mut HashMap<K, Sum>, key: K, bytes: u64) {
    let sum = sums.entry(key).or_default();
    sum.bytes += bytes;
    sum.buffers += 1;
}

fn sorted<K: Ord>(sums: HashMap<K, Sum>) -> Vec<(K, Sum)> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by(|(a, x), (b, y)| y.bytes.cmp(&x.bytes).then_with(|| a.cmp(b)));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, bytes: u64, owner: u64, tag: Option<&str>) -> Record {
        let mut spec = Spec::from((DType::U8, bytes));
        spec.label.owner = owner;
        spec.label.tag = tag.map(|tag| tag.as_bytes().into());
        let since = Instant::now();
        let device = DeviceId {
            runtime: crate::device_id::Runtime::Vulkan,
            index: 0,
        };
        Record {
            id,
            device,
            bytes,
            spec,
            since,
            location: None,
        }
    }

    #[test]
    fn a_report_sums_by_owner_and_tag_and_names_the_largest() {
        let tracker = AllocationTracker::default();
        for (id, bytes, owner, tag) in [
            (1, 10, 7, None),
            (2, 30, 8, Some("a")),
            (3, 25, 7, Some("a")),
        ] {
            tracker.insert(record(id, bytes, owner, tag));
        }
        let report = tracker.report(2);
        let ids: Vec<u64> = report.largest.iter().map(|record| record.id).collect();
        assert_eq!(ids, [2, 3]);
        let sum = |bytes, buffers| Sum { bytes, buffers };
        assert_eq!(report.by_owner, [(7, sum(35, 2)), (8, sum(30, 1))]);
        let a: Arc<[u8]> = b"a"[..].into();
        assert_eq!(report.by_tag, [(Some(a), sum(55, 2)), (None, sum(10, 1))]);
        tracker.remove(2);
        assert_eq!(tracker.report(9).largest.len(), 2);
    }

    #[test]
    fn counts_that_overflow_are_none() {
        let huge = |shape: &[u64]| Spec {
            shape: shape.into(),
            ..Spec::from((DType::F64, 0))
        };
        assert_eq!(huge(&[1 << 40, 1 << 40]).count(), None);
        assert_eq!(huge(&[1 << 40, 0, 1 << 40]).count(), Some(0));
        assert_eq!(huge(&[1 << 61]).bytes(), None);
        assert_eq!(huge(&[]).bytes(), Some(8));
    }
}
