//! Trip counts: the largest number of iterations that the loops of a program can make in one
//! thread. Some drivers stop every loop of a thread after 65,535 iterations in total, without an
//! error.

use crate::dtype::{DType, Kind};
use crate::program::assignments::assigned;
use crate::program::tree::{Binary, Expr, INDEX, Program, Stmt, While};

/// The least and the greatest value.
type Range = (i64, i64);

/// The values of a launch, with its program.
pub struct Launch<'a> {
    pub program: &'a Program,
    pub scalars: &'a [u64],
    /// The number of elements of each buffer.
    pub counts: &'a [u64],
    pub invocations: u64,
}

/// Whether the block has a loop.
pub fn has_loop(block: &[Stmt]) -> bool {
    block.iter().any(|statement| match statement {
        Stmt::For(..) | Stmt::While(_) => true,
        Stmt::If(_, then, other) => has_loop(then) || has_loop(other),
        _ => false,
    })
}

/// A program with one loop, which makes this many iterations, to test a driver.
pub fn long_loop(iterations: i32) -> Program {
    let int = |value: i32| Expr::Const(DType::S32, u64::from(value as u32));
    let next = Expr::Binary(Binary::Add, Box::new(Expr::Local(1)), Box::new(int(1)));
    Program {
        inputs: vec![],
        outputs: vec![DType::S32],
        scalars: vec![],
        locals: vec![INDEX; 2],
        body: vec![
            Stmt::For(0, int(1), int(iterations), vec![Stmt::Set(1, next)]),
            Stmt::Write(0, int(0), Expr::Local(1)),
        ],
        report: None,
        group: None,
    }
}

impl Launch<'_> {
    /// An upper bound on the iterations of one thread; `u64::MAX` if that depends on what the thread reads or calculates.
    pub fn most(&self) -> u64 {
        let mut counters = vec![None; self.program.locals.len()];
        let once = self.block(&self.program.body, &mut counters);
        let group = self.program.group.as_ref();
        let threads = group.map_or(1, |group| u64::from(group.threads));
        let cleared = self.program.shared().iter();
        let cleared: u64 = cleared
            .map(|(_, len)| u64::from(*len).div_ceil(threads) + 1)
            .sum();
        let once = once.saturating_add(cleared);
        once.saturating_add(1)
    }

    fn block(&self, block: &[Stmt], counters: &mut [Option<Range>]) -> u64 {
        block.iter().fold(0, |sum: u64, statement| {
            sum.saturating_add(match statement {
                Stmt::If(_, then, other) => {
                    let then = self.block(then, counters);
                    then.saturating_add(self.block(other, counters))
                }
                Stmt::For(local, from, to, body) => {
                    self.iterations(*local, (from, to), body, counters)
                }
                Stmt::While(round) => self.at_most(round, counters),
                // Other assignments to a loop counter are not followed.
                Stmt::Set(local, _) | Stmt::Atomic(_, _, _, _, Some(local)) => {
                    counters[*local] = None;
                    0
                }
                Stmt::LoadVector(_, _, locals) => {
                    locals.iter().for_each(|local| counters[*local] = None);
                    0
                }
                _ => 0,
            })
        })
    }

    fn iterations(
        &self,
        local: usize,
        (from, to): (&Expr, &Expr),
        body: &[Stmt],
        counters: &mut [Option<Range>],
    ) -> u64 {
        let (Some((low, _)), Some((_, high))) =
            (self.range(from, counters), self.range(to, counters))
        else {
            return u64::MAX;
        };
        let before = counters.to_vec();
        counters[local] = (!sets(body, local)).then_some((low, high.max(low)));
        let inner = self.block(body, counters);
        // A loop may make no iteration, which leaves the locals as they were before it.
        counters.copy_from_slice(&before);
        counters[local] = None;
        let iterations = u64::try_from(high - low + 1).unwrap_or(0);
        let each = inner.saturating_add(1);
        iterations.saturating_mul(each).saturating_add(1)
    }

    fn at_most(&self, round: &While, counters: &mut [Option<Range>]) -> u64 {
        let Some((_, limit)) = self.range(&round.limit, counters) else {
            return u64::MAX;
        };
        let before = counters.to_vec();
        let head = self.block(&round.head, counters);
        let inner = head.saturating_add(self.block(&round.body, counters));
        counters.copy_from_slice(&before);
        let iterations = u64::try_from(limit).unwrap_or(0);
        iterations
            .saturating_mul(inner.saturating_add(1))
            .saturating_add(1)
    }

    fn range(&self, expr: &Expr, counters: &[Option<Range>]) -> Option<Range> {
        let up_to = |end: u64| Some((0, i64::try_from(end).ok()?.saturating_sub(1).max(0)));
        match expr {
            Expr::Const(dtype, bits) => number(*dtype, *bits),
            Expr::Scalar(slot) => {
                let dtype = self.program.scalars.get(*slot)?;
                number(*dtype, *self.scalars.get(*slot)?)
            }
            Expr::Len(slot) => {
                let shared = || {
                    let at = slot.checked_sub(self.counts.len())?;
                    Some(u64::from(self.program.shared().get(at)?.1))
                };
                let count = self.counts.get(*slot).copied().or_else(shared)?;
                let count = i64::try_from(count).ok()?;
                Some((count, count))
            }
            Expr::GlobalId | Expr::GroupId => up_to(self.invocations),
            Expr::LocalId => up_to(u64::from(self.program.group.as_ref()?.threads)),
            Expr::Local(local) => *counters.get(*local)?,
            Expr::Select(_, then, other) => {
                let (a, b) = (self.range(then, counters)?, self.range(other, counters)?);
                Some((a.0.min(b.0), a.1.max(b.1)))
            }
            Expr::Binary(op, left, right) => {
                let (a, b) = (self.range(left, counters)?, self.range(right, counters)?);
                binary(*op, a, b)
            }
            _ => None,
        }
    }
}

fn sets(block: &[Stmt], local: usize) -> bool {
    let mut found = false;
    assigned(block, &mut |other| found |= other == local);
    found
}

fn number(dtype: DType, bits: u64) -> Option<Range> {
    let value = match dtype.kind() {
        Kind::Float => return None,
        Kind::Unsigned => i64::try_from(bits).ok()?,
        Kind::Signed => {
            let unused = 64 - 8 * dtype.size() as u32;
            ((bits << unused) as i64) >> unused
        }
    };
    Some((value, value))
}

/// `None` if a bound does not fit in 32 bits.
fn binary(op: Binary, a: Range, b: Range) -> Option<Range> {
    let corners = |f: fn(i64, i64) -> Option<i64>| {
        let all = [f(a.0, b.0)?, f(a.0, b.1)?, f(a.1, b.0)?, f(a.1, b.1)?];
        Some((all.into_iter().min()?, all.into_iter().max()?))
    };
    let (low, high) = match op {
        Binary::Add => corners(i64::checked_add)?,
        Binary::Sub => corners(i64::checked_sub)?,
        Binary::Mul => corners(i64::checked_mul)?,
        Binary::Div if b.0 > 0 => corners(i64::checked_div)?,
        Binary::Rem if b.0 > 0 && a.0 >= 0 => (0, a.1.min(b.1 - 1)),
        Binary::Min => (a.0.min(b.0), a.1.min(b.1)),
        Binary::Max => (a.0.max(b.0), a.1.max(b.1)),
        _ => return None,
    };
    let holds = low >= i64::from(i32::MIN) && high <= i64::from(i32::MAX);
    holds.then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i32) -> Expr {
        Expr::Const(DType::S32, u64::from(value as u32))
    }

    fn most(body: Vec<Stmt>) -> u64 {
        let program = Program {
            inputs: vec![DType::F32],
            outputs: vec![DType::F32],
            scalars: vec![DType::S32],
            locals: vec![INDEX; 3],
            body,
            report: None,
            group: None,
        };
        let known = Launch {
            program: &program,
            scalars: &[50],
            counts: &[1000, 10],
            invocations: 20,
        };
        known.most()
    }

    #[test]
    fn what_is_known_at_the_launch_bounds_the_rounds() {
        let round = |local, from, to, body| Stmt::For(local, from, to, body);
        let minus = |a: Expr, b: Expr| Expr::Binary(Binary::Sub, Box::new(a), Box::new(b));
        // A loop checks its condition once more than it iterates.
        assert_eq!(most(vec![]), 1);
        assert_eq!(most(vec![round(0, int(1), int(9), vec![])]), 1 + 10);
        assert_eq!(most(vec![round(0, int(1), Expr::Len(0), vec![])]), 1 + 1001);
        assert_eq!(
            most(vec![round(0, int(1), Expr::Scalar(0), vec![])]),
            1 + 51
        );
        assert_eq!(most(vec![round(0, int(1), Expr::GlobalId, vec![])]), 1 + 20);
        assert_eq!(most(vec![round(0, int(5), int(1), vec![])]), 1 + 1);
        let inner = round(1, int(0), minus(Expr::Local(0), int(1)), vec![]);
        let outer = round(0, int(1), int(4), vec![inner.clone()]);
        assert_eq!(most(vec![outer]), 1 + 4 * (1 + 5) + 1);
        let until = |limit, body| {
            Stmt::While(Box::new(While {
                limit,
                head: vec![round(1, int(1), int(2), vec![])],
                condition: Expr::Bool(true),
                body,
            }))
        };
        assert_eq!(most(vec![until(Expr::Scalar(0), vec![])]), 1 + 50 * 4 + 1);
        let body = vec![inner.clone()];
        let outer = round(0, int(1), int(4), vec![until(int(3), body)]);
        assert_eq!(most(vec![outer]), 1 + 4 * (3 * (3 + 5 + 1) + 1 + 1) + 1);
        assert_eq!(most(vec![until(int(-1), vec![])]), 1 + 1);
        // A bound that is read from a buffer, or a local that is set in between, is unknown.
        let read = Expr::Read(0, Box::new(int(0)));
        assert_eq!(most(vec![round(0, int(1), read, vec![])]), u64::MAX);
        let set = Stmt::Set(0, Expr::GlobalId);
        assert_eq!(most(vec![set.clone(), inner.clone()]), u64::MAX);
        assert_eq!(
            most(vec![round(0, int(1), int(4), vec![set, inner])]),
            u64::MAX
        );
    }
}
