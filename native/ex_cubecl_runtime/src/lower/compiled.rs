//! The programs that a device has compiled, and the keys under which CubeCL caches their pipelines.
//!
//! CubeCL 0.10 never removes a pipeline from its cache, a private map. But a pipeline that it compiles under a key that
//! the map already has replaces the previous one. So this module has a limited number of keys, called slots, and reuses
//! them. A slot's key is equal to itself only for the program whose pipeline CubeCL holds under it. For any other
//! program it is equal only at the moment when CubeCL inserts the pipeline of that program.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use parking_lot::RwLock;

use crate::lru::Lru;
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::tree::Program;

/// Limit of the programs that a device keeps compiled, if the runtime can free others.
const MOST: usize = 512;
/// Limit of the bytes that their code takes, by the estimate below.
const MOST_BYTES: u64 = 256 << 20;

/// Estimate, based on lavapipe, of the bytes that a driver keeps for a program: a fixed part, and a part for each node
/// of its tree.
const BYTES: u64 = 200 << 10;
const BYTES_OF_NODE: u64 = 1 << 10;

/// A key of CubeCL's map, in its two forms: plain, and checked.
#[derive(Debug)]
struct Slot {
    number: usize,
    weight: AtomicU64,
    /// The turn of the program whose pipeline CubeCL has here; 0 if there is none, or if it is unknown which.
    holds: [AtomicU64; 2],
}

/// The use of a slot by a program. Each use has a unique number, its turn; later uses have larger numbers.
#[derive(Debug)]
pub struct SlotUse {
    slot: Arc<Slot>,
    turn: u64,
    pub program: Arc<Program>,
    /// Traversing its tree takes microseconds.
    pub is_small: bool,
}

/// Nodes of the largest tree that a launch traverses on a BEAM scheduler.
const FEW_NODES: u64 = 1_000;

impl SlotUse {
    /// Whether CubeCL has the pipeline.
    pub fn is_compiled(&self, checked: bool) -> bool {
        self.slot.holds[usize::from(checked)].load(Acquire) == self.turn
    }
}

/// The key that CubeCL compares. CubeCL keeps the first key of each slot forever, so a key holds no program.
#[derive(Debug, Clone)]
pub struct Key {
    slot: Arc<Slot>,
    turn: u64,
    checked: bool,
    /// CubeCL is compiling for this key, and inserts the pipeline under it next.
    compiling: Arc<AtomicBool>,
}

impl Key {
    pub fn new(place: &Arc<SlotUse>, checked: bool) -> Key {
        Key {
            slot: place.slot.clone(),
            turn: place.turn,
            checked,
            compiling: Arc::default(),
        }
    }

    pub fn checks_loops(&self) -> bool {
        self.checked
    }

    pub fn is_compiled(&self) -> bool {
        self.holds().load(Acquire) == self.turn
    }

    fn holds(&self) -> &AtomicU64 {
        &self.slot.holds[usize::from(self.checked)]
    }

    /// Records that CubeCL has no pipeline for this key and starts to compile one.
    pub fn compiles(&self) {
        self.compiling.store(true, Release);
    }

    pub fn is_compiling(&self) -> bool {
        self.compiling.load(Acquire)
    }

    /// Records that CubeCL is done, and whether there is a pipeline now. After a failure, the previous pipeline may
    /// still be there.
    pub fn compiled(&self, success: bool) {
        self.compiling.store(false, Release);
        let held = if success { self.turn } else { 0 };
        self.holds().store(held, Release);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slot.number.hash(state);
        self.checked.hash(state);
    }
}

/// CubeCL compares the first key that it saw of a slot with the key that it looks up, which has the later turn.
impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let turn = self.turn.max(other.turn);
        Arc::ptr_eq(&self.slot, &other.slot)
            && self.checked == other.checked
            && (self.is_compiling() || other.is_compiling() || self.holds().load(Acquire) == turn)
    }
}

impl Eq for Key {}

/// The programs of one device.
pub struct Compiled {
    state: RwLock<State>,
    /// Limit past which further programs are refused, for a runtime that frees none.
    most: Option<usize>,
    slots: AtomicUsize,
}

struct State {
    places: Lru<usize, Arc<SlotUse>>,
    free: Vec<Arc<Slot>>,
    turns: u64,
}

fn address(program: &Arc<Program>) -> usize {
    Arc::as_ptr(program).addr()
}

impl Compiled {
    /// `most`: the limit for a runtime that never frees what it compiled.
    pub fn new(most: Option<usize>) -> Compiled {
        let (count, bytes) = match most {
            Some(_) => (usize::MAX, u64::MAX),
            None => (MOST, MOST_BYTES),
        };
        Compiled {
            state: RwLock::new(State {
                places: Lru::new(count, bytes),
                free: Vec::new(),
                turns: 0,
            }),
            most,
            slots: AtomicUsize::new(0),
        }
    }

    /// Upper bound of the number of keys that CubeCL was given.
    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.slots.load(Relaxed)
    }

    /// The place of a program, if it is compiled.
    pub fn find(&self, program: &Arc<Program>) -> Option<Arc<SlotUse>> {
        let state = self.state.read();
        let place = state.places.get(&address(program))?;
        place.is_compiled(false).then(|| place.clone())
    }

    /// The place of a program, compiled or not. If there is no room for it, the least recently used programs are
    /// evicted.
    pub fn place(&self, program: &Arc<Program>) -> Result<Arc<SlotUse>> {
        if let Some(place) = self.state.read().places.get(&address(program)) {
            return Ok(place.clone());
        }
        let mut state = self.state.write();
        if let Some(place) = state.places.get(&address(program)) {
            return Ok(place.clone());
        }
        if self.most.is_some_and(|most| state.places.len() >= most) {
            return Err(Error::BadKernel {
                reason: "the device has compiled 16,384 different kernels, and frees none: pass what varies as a number, not as code".into(),
            });
        }
        let nodes = program.nodes();
        let weight = BYTES + BYTES_OF_NODE * nodes;
        let slot = state.make_room(weight, || self.slots.fetch_add(1, Relaxed));
        slot.weight.store(weight, Relaxed);
        state.turns += 1;
        let place = Arc::new(SlotUse {
            slot,
            turn: state.turns,
            program: program.clone(),
            is_small: nodes <= FEW_NODES,
        });
        let gone = state.places.insert(address(program), place.clone(), weight);
        state.free(gone);
        Ok(place)
    }

    /// Removes a program that could not be compiled.
    pub fn forget_failed(&self, program: &Arc<Program>) {
        let mut state = self.state.write();
        let found = state.places.get(&address(program));
        if found.is_some_and(|place| !place.is_compiled(false) && !place.is_compiled(true)) {
            let gone = state.places.remove(&address(program));
            state.free(gone);
        }
    }
}

impl State {
    /// Returns the heaviest free slot, whose pipeline is freed when the next one replaces it.
    fn make_room(&mut self, weight: u64, number: impl FnOnce() -> usize) -> Arc<Slot> {
        let gone = self.places.make_room(weight);
        self.free(gone);
        self.free.pop().unwrap_or_else(|| {
            Arc::new(Slot {
                number: number(),
                weight: AtomicU64::new(0),
                holds: [const { AtomicU64::new(0) }; 2],
            })
        })
    }

    fn free(&mut self, gone: impl IntoIterator<Item = Arc<SlotUse>>) {
        let slots = gone.into_iter().map(|place| place.slot.clone());
        self.free.extend(slots);
        self.free.sort_by_key(|slot| slot.weight.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ex_cubecl_core::program::tree::{Expr, Stmt};
    use ex_cubecl_core::{DType, program::tree::INDEX};
    use std::collections::HashMap;

    fn program(number: u64, nodes: usize) -> Arc<Program> {
        let one = Expr::Const(DType::S32, number);
        Arc::new(Program {
            inputs: vec![],
            outputs: vec![DType::S32],
            scalars: vec![],
            locals: vec![INDEX],
            body: vec![Stmt::Put(0, one); nodes],
            report: None,
            group: None,
        })
    }

    /// A model of CubeCL: it looks up the pipeline of a key, or compiles one and inserts it.
    // Only the equality of a key changes, while CubeCL compiles: see `Key`.
    #[allow(clippy::mutable_key_type)]
    fn launched(map: &mut HashMap<Key, u64>, place: &Arc<SlotUse>, fails: bool) -> u64 {
        let key = Key::new(place, false);
        if let Some(found) = map.get(&key) {
            assert!(key.is_compiled());
            return *found;
        }
        key.compiles();
        let Stmt::Put(_, Expr::Const(_, number)) = place.program.body[0] else {
            unreachable!()
        };
        if !fails {
            map.insert(key.clone(), number);
            assert_eq!(map.get(&key), Some(&number));
        }
        key.compiled(!fails);
        assert_eq!(key.is_compiled(), !fails);
        number
    }

    #[test]
    fn slots_are_used_again_and_never_for_what_was_there_before() {
        let (compiled, mut map) = (Compiled::new(None), HashMap::new());
        let programs: Vec<_> = (0..3 * MOST as u64).map(|at| program(at, 1)).collect();
        for (at, program) in programs.iter().enumerate() {
            let place = compiled.place(program).unwrap();
            assert_eq!(launched(&mut map, &place, false), at as u64);
            assert_eq!(launched(&mut map, &place, true), at as u64);
            // The first program is used in each iteration.
            let first = compiled.place(&programs[0]).unwrap();
            assert!(at == 0 || first.is_compiled(false));
        }
        assert_eq!((map.len(), compiled.slots()), (MOST, MOST));
        assert!(compiled.find(&programs[0]).is_some());
        assert!(compiled.find(&programs[1]).is_none());
        // An evicted program is compiled again, also with the place that it had before.
        let (old, last) = (&programs[1], &programs[3 * MOST - 1]);
        let place = compiled.place(old).unwrap();
        assert_eq!(launched(&mut map, &place, false), 1);
        for number in 0..MOST as u64 {
            compiled.place(&program(number, 1)).unwrap();
        }
        let next = compiled.place(last).unwrap();
        for _ in 0..3 {
            assert_eq!(launched(&mut map, &next, false), 3 * MOST as u64 - 1);
            assert_eq!(launched(&mut map, &place, false), 1);
        }
        assert_eq!(map.len(), MOST);
    }

    #[test]
    fn what_could_not_be_compiled_never_runs_as_something_else() {
        let (compiled, mut map) = (Compiled::new(None), HashMap::new());
        let good = program(7, 1);
        let first = compiled.place(&good).unwrap();
        launched(&mut map, &first, false);
        compiled.forget_failed(&good);
        assert!(compiled.find(&good).is_some());
        // As if it had been evicted for the next program.
        compiled.state.write().places.remove(&address(&good));
        compiled.state.write().free.push(first.slot.clone());
        let bad = program(8, 1);
        let place = compiled.place(&bad).unwrap();
        assert!(Arc::ptr_eq(&place.slot, &first.slot));
        assert_eq!(launched(&mut map, &place, true), 8);
        assert!(!place.is_compiled(false) && compiled.find(&bad).is_none());
        assert_eq!(map.get(&Key::new(&place, false)), None);
        assert_eq!(map.get(&Key::new(&first, false)), None);
        assert_eq!(launched(&mut map, &place, false), 8);
        assert_eq!(map.get(&Key::new(&first, false)), None);
        assert_eq!((map.len(), compiled.slots()), (1, 1));
        compiled.forget_failed(&bad);
        assert!(compiled.find(&bad).is_some());
    }

    #[test]
    fn large_programs_count_for_more() {
        let compiled = Compiled::new(None);
        let large = (MOST_BYTES / BYTES_OF_NODE / 4) as usize;
        let programs: Vec<_> = (0..8).map(|at| program(at, large)).collect();
        for program in &programs {
            let place = compiled.place(program).unwrap();
            Key::new(&place, false).compiled(true);
        }
        let kept = programs.iter().filter(|it| compiled.find(it).is_some());
        assert!(kept.count() < 4);
        assert!(compiled.slots() <= 4);
    }

    #[test]
    fn where_nothing_is_freed_there_is_an_end() {
        let compiled = Compiled::new(Some(2));
        let programs: Vec<_> = (0..3).map(|at| program(at, 1)).collect();
        assert!(compiled.place(&programs[0]).is_ok());
        assert!(compiled.place(&programs[1]).is_ok());
        assert!(compiled.place(&programs[2]).is_err());
        assert!(compiled.place(&programs[0]).is_ok());
    }
}
