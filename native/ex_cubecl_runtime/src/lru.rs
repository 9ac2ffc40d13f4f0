//! A least-recently-used cache, bounded by count and by weight.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Entry<V> {
    value: V,
    weight: u64,
    used: AtomicU64,
}

pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Counts uses: the entry with the lowest number is evicted next.
    clock: AtomicU64,
    weight: u64,
    max_count: usize,
    max_weight: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub fn new(max_count: usize, max_weight: u64) -> Self {
        Lru {
            entries: HashMap::new(),
            clock: AtomicU64::new(0),
            weight: 0,
            max_count,
            max_weight,
        }
    }

    /// The value of a key. This counts as a use.
    pub fn get(&self, key: &K) -> Option<&V> {
        let entry = self.entries.get(key)?;
        entry.used.store(self.tick(), Relaxed);
        Some(&entry.value)
    }

    /// Inserts a value, and returns the values that were evicted for it. The new value is kept,
    /// whatever its weight.
    pub fn insert(&mut self, key: K, value: V, weight: u64) -> Vec<V> {
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        gone.extend(self.make_room(weight));
        self.weight += weight;
        let used = AtomicU64::new(self.tick());
        let entry = Entry {
            value,
            weight,
            used,
        };
        self.entries.insert(key, entry);
        gone
    }

    /// Evicts entries until an entry of this weight fits, and returns their values.
    pub fn make_room(&mut self, weight: u64) -> Vec<V> {
        let (count, room) = (self.max_count, self.max_weight.saturating_sub(weight));
        let mut gone = Vec::new();
        while self.entries.len() >= count || self.weight > room {
            let oldest = self.entries.iter();
            let oldest = oldest.min_by_key(|(_, entry)| entry.used.load(Relaxed));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            gone.extend(self.remove(&oldest));
        }
        gone
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        Some(entry.value)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(3, 100);
        for number in 0..3 {
            assert!(lru.insert(number, number, 1).is_empty());
        }
        assert_eq!(lru.get(&0), Some(&0));
        assert_eq!(lru.insert(3, 3, 1), [1]);
        assert_eq!(lru.insert(4, 4, 1), [2]);
        assert_eq!((lru.len(), lru.weight), (3, 3));
        assert_eq!((lru.get(&1), lru.get(&0)), (None, Some(&0)));
    }

    #[test]
    fn weight_counts_too() {
        let mut lru = Lru::new(10, 100);
        for number in 0..4 {
            lru.insert(number, number, 25);
        }
        assert_eq!(lru.insert(4, 4, 40), [0, 1]);
        assert_eq!(lru.insert(4, 5, 50), [4]);
        assert_eq!(lru.insert(6, 6, 1000), [2, 3, 5]);
        assert_eq!((lru.len(), lru.weight), (1, 1000));
        assert_eq!(lru.remove(&6), Some(6));
        assert_eq!((lru.len(), lru.weight), (0, 0));
    }
}
