//! Uniformity analysis: which values are the same in all threads of a group. All threads must reach
//! a barrier and an operation on a plane, so the conditions around them must be uniform.

use crate::program::tree::{Expr, Program, Stmt, While};

/// Which locals may differ between the threads of a group: those set to a varying value, or set in
/// divergent control flow.
pub(super) struct Uniformity {
    varying: Vec<bool>,
}

impl Uniformity {
    pub fn of(program: &Program) -> Self {
        let mut known = Uniformity {
            varying: vec![false; program.locals.len()],
        };
        while known.spread(&program.body, true) {}
        known
    }

    fn is(&self, expr: &Expr) -> bool {
        let mut uniform = true;
        expr.each(&mut |part| {
            uniform &= match part {
                Expr::GlobalId | Expr::LocalId | Expr::ElementAtSelf(_) | Expr::Read(..) => false,
                Expr::PlaneLane | Expr::Plane(..) | Expr::PlaneBroadcast(..) => false,
                Expr::Local(local) => !self.varying[*local],
                _ => true,
            }
        });
        uniform
    }

    /// Marks the varying locals of a block. Returns whether it found a new one.
    fn spread(&mut self, block: &[Stmt], together: bool) -> bool {
        let mut found = false;
        for statement in block {
            found |= match statement {
                Stmt::Set(local, value) => self.varies(*local, !(together && self.is(value))),
                Stmt::Atomic(_, _, _, _, Some(local)) => self.varies(*local, true),
                Stmt::LoadVector(_, _, locals) => {
                    let mut new = false;
                    for local in locals {
                        new |= self.varies(*local, true);
                    }
                    new
                }
                Stmt::If(condition, then, other) => {
                    let together = together && self.is(condition);
                    self.spread(then, together) | self.spread(other, together)
                }
                Stmt::For(local, from, to, body) => {
                    let together = together && self.is(from) && self.is(to);
                    self.varies(*local, !together) | self.spread(body, together)
                }
                Stmt::While(round) => {
                    let together = together && self.is_uniform(round);
                    self.spread(&round.head, together) | self.spread(&round.body, together)
                }
                _ => false,
            };
        }
        found
    }

    fn varies(&mut self, local: usize, varies: bool) -> bool {
        let new = varies && !self.varying[local];
        self.varying[local] |= varies;
        new
    }

    /// Whether all threads of a group reach each barrier and each operation on a plane together.
    pub fn holds(&self, block: &[Stmt], together: bool) -> bool {
        let reached = |statement: &Stmt| together || !uses_plane(statement);
        let all = |statement: &Stmt| reached(statement) && self.holds_in(statement, together);
        block.iter().all(all)
    }

    fn holds_in(&self, statement: &Stmt, together: bool) -> bool {
        match statement {
            Stmt::Barrier => together,
            Stmt::If(condition, then, other) => {
                let together = together && self.is(condition);
                self.holds(then, together) && self.holds(other, together)
            }
            Stmt::For(_, from, to, body) => {
                self.holds(body, together && self.is(from) && self.is(to))
            }
            Stmt::While(round) => {
                let together = together && self.is_uniform(round);
                let reached = together || !has_plane(&round.condition);
                reached && self.holds(&round.head, together) && self.holds(&round.body, together)
            }
            _ => true,
        }
    }

    /// Whether all threads of a group make the same iterations.
    fn is_uniform(&self, round: &While) -> bool {
        self.is(&round.limit) && self.is(&round.condition)
    }
}

fn uses_plane(statement: &Stmt) -> bool {
    let mut found = false;
    statement.each(&mut |expr| found |= expr.plane_operation().is_some());
    found
}

fn has_plane(expr: &Expr) -> bool {
    let mut found = false;
    expr.each(&mut |part| found |= part.plane_operation().is_some());
    found
}
