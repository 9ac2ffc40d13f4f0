//! Interns programs: equal programs share one allocation, so that a compiled kernel is found by the
//! program's address.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::program::tree::Program;

/// Programs by their hashes. The table holds weak references only.
#[derive(Default)]
struct Table {
    programs: HashMap<u64, Vec<Weak<Program>>>,
    /// The number of hashes at which dropped programs are removed from the table.
    most: usize,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// An equal program that is alive, or this one.
pub fn shared(program: Program) -> Arc<Program> {
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    TABLE.lock().shared(hasher.finish(), program)
}

/// How many programs are alive.
pub fn count() -> usize {
    let mut table = TABLE.lock();
    table.sweep();
    table.len()
}

impl Table {
    fn shared(&mut self, hash: u64, program: Program) -> Arc<Program> {
        let known = self.programs.get(&hash).into_iter().flatten();
        let mut known = known.filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| **known == program) {
            return known;
        }
        if self.programs.len() >= self.most {
            self.sweep();
            self.most = 2 * self.programs.len() + 64;
        }
        let program = Arc::new(program);
        let same = self.programs.entry(hash).or_default();
        same.push(Arc::downgrade(&program));
        program
    }

    fn sweep(&mut self) {
        self.programs.retain(|_, same| {
            same.retain(|program| program.strong_count() > 0);
            !same.is_empty()
        });
    }

    fn len(&self) -> usize {
        self.programs.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::program::tree::{Expr, Stmt};

    fn program(number: u64) -> Program {
        Program {
            inputs: vec![],
            outputs: vec![DType::S32],
            scalars: vec![],
            locals: vec![],
            body: vec![Stmt::Put(0, Expr::Const(DType::S32, number))],
            report: None,
            group: None,
        }
    }

    #[test]
    fn equal_programs_are_shared_while_one_is_alive() {
        let mut table = Table::default();
        let first = table.shared(1, program(7));
        assert!(Arc::ptr_eq(&first, &table.shared(1, program(7))));
        // A different program with the same hash.
        let second = table.shared(1, program(8));
        assert_eq!((&*second, table.len()), (&program(8), 2));
        drop(first);
        table.sweep();
        assert_eq!(table.len(), 1);
        assert!(Arc::ptr_eq(&second, &table.shared(1, program(8))));
        for number in 0..10_000 {
            table.shared(number, program(number));
        }
        assert!(table.len() < 200);
    }
}
