//! Which statements assign which locals.

use crate::program::tree::{Expr, Program, Stmt};

/// Visits each local that a block may assign, as often as it is assigned.
pub fn assigned(block: &[Stmt], visit: &mut impl FnMut(usize)) {
    for statement in block {
        match statement {
            Stmt::Set(local, _) | Stmt::Atomic(_, _, _, _, Some(local)) => visit(*local),
            Stmt::LoadVector(_, _, locals) => locals.iter().for_each(|local| visit(*local)),
            Stmt::If(_, then, other) => {
                assigned(then, visit);
                assigned(other, visit);
            }
            Stmt::For(local, _, _, body) => {
                visit(*local);
                assigned(body, visit);
            }
            Stmt::While(round) => {
                assigned(&round.head, visit);
                assigned(&round.body, visit);
            }
            _ => {}
        }
    }
}

/// For each local, whether it is a name for one value: one statement assigns it, and it is read only after that, in the
/// same block or in a block within. An atomic operation does not count: it assigns zero, and then perhaps a value.
pub fn set_once(program: &Program) -> Vec<bool> {
    let mut times = vec![0_u32; program.locals.len()];
    assigned(&program.body, &mut |local| times[local] += 1);
    let mut reads = Reads {
        once: times.into_iter().map(|times| times == 1).collect(),
        set: vec![false; program.locals.len()],
    };
    reads.block(&program.body);
    reads.once
}

struct Reads {
    once: Vec<bool>,
    /// The locals that the blocks around the current statement have assigned before it.
    set: Vec<bool>,
}

impl Reads {
    fn block(&mut self, block: &[Stmt]) {
        let mut own = Vec::new();
        for statement in block {
            self.statement(statement, &mut own);
        }
        self.leave(own);
    }

    fn leave(&mut self, own: Vec<usize>) {
        own.into_iter().for_each(|local| self.set[local] = false);
    }

    fn statement(&mut self, statement: &Stmt, own: &mut Vec<usize>) {
        if let Stmt::While(round) = statement {
            self.read(&round.limit);
            let mut inner = Vec::new();
            for statement in &round.head {
                self.statement(statement, &mut inner);
            }
            self.read(&round.condition);
            self.block(&round.body);
            self.leave(inner);
            return;
        }
        statement.each(&mut |expr| self.one(expr));
        match statement {
            Stmt::Set(local, _) => self.assign(*local, own),
            Stmt::LoadVector(_, _, locals) => {
                locals.iter().for_each(|local| self.assign(*local, own));
            }
            Stmt::Atomic(_, _, _, _, Some(local)) => self.once[*local] = false,
            Stmt::If(_, then, other) => {
                self.block(then);
                self.block(other);
            }
            Stmt::For(local, _, _, body) => {
                let mut counter = Vec::new();
                self.assign(*local, &mut counter);
                self.block(body);
                self.leave(counter);
            }
            _ => {}
        }
    }

    fn assign(&mut self, local: usize, own: &mut Vec<usize>) {
        self.set[local] = true;
        own.push(local);
    }

    fn read(&mut self, expr: &Expr) {
        expr.each(&mut |expr| self.one(expr));
    }

    fn one(&mut self, expr: &Expr) {
        if let Expr::Local(local) = expr {
            self.once[*local] &= self.set[*local];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::program::tree::{Atomic, INDEX, While};

    fn once(body: Vec<Stmt>) -> Vec<bool> {
        set_once(&Program {
            inputs: vec![],
            outputs: vec![DType::S32],
            scalars: vec![],
            locals: vec![INDEX; 3],
            body,
            report: None,
            group: None,
        })
    }

    fn set(local: usize) -> Stmt {
        Stmt::Set(local, Expr::GlobalId)
    }

    fn read(local: usize) -> Stmt {
        Stmt::Put(0, Expr::Local(local))
    }

    fn branch(then: Vec<Stmt>, other: Vec<Stmt>) -> Stmt {
        Stmt::If(Expr::Bool(true), then, other)
    }

    fn count(local: usize, body: Vec<Stmt>) -> Stmt {
        Stmt::For(local, Expr::GlobalId, Expr::GlobalId, body)
    }

    #[test]
    fn one_value_read_after_it_in_the_same_block_or_within() {
        let within = branch(vec![read(0)], vec![count(1, vec![read(0), read(1)])]);
        assert_eq!(once(vec![set(0), read(0), within]), [true, true, false]);
        // Set in a branch or in a loop, and read there.
        assert!(once(vec![branch(vec![set(0), read(0)], vec![])])[0]);
        assert!(once(vec![count(1, vec![set(0), read(0)])])[0]);
    }

    #[test]
    fn two_assignments_or_a_read_that_is_not_after_the_only_one() {
        assert!(!once(vec![set(0), set(0), read(0)])[0]);
        assert!(!once(vec![branch(vec![set(0)], vec![set(0)]), read(0)])[0]);
        assert!(!once(vec![read(0), set(0)])[0]);
        assert!(!once(vec![branch(vec![set(0)], vec![]), read(0)])[0]);
        assert!(!once(vec![branch(vec![set(0)], vec![read(0)])])[0]);
        // The value of the previous iteration.
        assert!(!once(vec![count(1, vec![read(0), set(0)])])[0]);
        assert!(!once(vec![Stmt::Set(0, Expr::Local(0))])[0]);
        // A counter after its loop, or changed by the body.
        assert!(!once(vec![count(0, vec![]), read(0)])[0]);
        assert!(!once(vec![count(0, vec![set(0)])])[0]);
    }

    #[test]
    fn loops_with_a_condition() {
        let round = |head, body| {
            Stmt::While(Box::new(While {
                limit: Expr::GlobalId,
                head,
                condition: Expr::Local(0),
                body,
            }))
        };
        assert!(once(vec![round(vec![set(0)], vec![read(0)])])[0]);
        assert!(!once(vec![round(vec![], vec![set(0)])])[0]);
        assert!(!once(vec![round(vec![set(0)], vec![]), read(0)])[0]);
    }

    #[test]
    fn atomic_operations_and_vectors() {
        let add = Stmt::Atomic(Atomic::Add, 0, Expr::GlobalId, Expr::GlobalId, Some(0));
        assert!(!once(vec![add, read(0)])[0]);
        let mut locals = vec![INDEX; 4];
        locals.push(INDEX);
        let load = Stmt::LoadVector(0, Expr::GlobalId, [0, 1, 2, 3]);
        let program = Program {
            inputs: vec![DType::S32],
            outputs: vec![DType::S32],
            scalars: vec![],
            locals,
            body: vec![load, Stmt::Put(1, Expr::Local(3))],
            report: None,
            group: None,
        };
        assert_eq!(set_once(&program), [true, true, true, true, false]);
    }
}
