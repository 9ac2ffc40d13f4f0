//! Accesses to four consecutive elements at once. Drivers, above all those for CPUs, load and store a vector in about the time of
//! one element.

use crate::dtype::DType;
use crate::program::tree::{Binary, Expr, INDEX, LANES, Program, Stmt, Type, While};

/// Nodes of the largest program that `vectorized` repeats for each lane.
const FEW_NODES: u64 = 100;

/// The types of which devices have vectors.
pub fn has_vectors(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::S32 | DType::U32 | DType::F16)
}

impl Program {
    /// The buffers that the program accesses by vectors.
    pub fn vectors(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        self.statements(&mut |statement| {
            if let Stmt::LoadVector(slot, ..) | Stmt::StoreVector(slot, ..) = statement {
                slots.push(*slot);
            }
        });
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// An equivalent program for buffers that have an element for each invocation. Each of its invocations does the work of four
    /// invocations of this one, and accesses by vectors the elements that are at the index of the invocation. `None` if there is
    /// nothing to gain, or if the program does anything that is not repeated that easily.
    pub fn vectorized(&self) -> Option<Program> {
        if self.group.is_some() || self.nodes() > FEW_NODES {
            return None;
        }
        let body = self.body.iter().map(with_own).collect();
        let whole = Program {
            body,
            ..self.clone()
        };
        whole.vectorized_own()
    }

    fn vectorized_own(&self) -> Option<Program> {
        let own = self.element_at_self();
        let first = self.body.iter().position(is_put)?;
        let (before, puts) = self.body.split_at(first);
        let simple = self.report.is_none()
            && puts.iter().all(is_put)
            && own
                .iter()
                .all(|slot| self.buffer(*slot).is_some_and(has_vectors))
            && self.is_simple(&own)
            && before.iter().all(is_repeatable)
            && are_independent(puts);
        simple.then(|| self.repeated(before, puts))
    }

    /// Whether all operations are cheap, and no element of `own` is read by an index.
    fn is_simple(&self, own: &[usize]) -> bool {
        let mut simple = true;
        self.each(&mut |expr| {
            simple &= match expr {
                Expr::Read(slot, _) => !own.contains(slot),
                Expr::Binary(op, ..) => *op != Binary::Rem,
                _ => true,
            }
        });
        simple
    }

    fn repeated(&self, before: &[Stmt], puts: &[Stmt]) -> Program {
        let mut loaded = Vec::new();
        self.each(&mut |expr| {
            if let Expr::ElementAtSelf(slot) = expr
                && !loaded.contains(slot)
            {
                loaded.push(*slot);
            }
        });
        let mut locals = self.locals.repeat(LANES);
        let mut body = Vec::new();
        for slot in &loaded {
            let at = locals.len();
            let ty = self.buffer(*slot).map_or(INDEX, Type::Of);
            locals.extend([ty; LANES]);
            body.push(Stmt::LoadVector(
                *slot,
                Expr::GlobalId,
                lanes(|lane| at + lane),
            ));
        }
        let lane = |lane| Lane {
            lane,
            locals: self.locals.len(),
            loaded: &loaded,
        };
        for at in 0..LANES {
            body.extend(lane(at).block(before));
        }
        for put in puts {
            if let Stmt::Put(slot, value) = put {
                let values = lanes(|at| lane(at).expr(value));
                body.push(Stmt::StoreVector(*slot, Expr::GlobalId, Box::new(values)));
            }
        }
        Program {
            locals,
            body,
            ..self.clone()
        }
    }

    /// An equivalent program that accesses the elements of vectors one by one, for buffers whose elements are not aligned as vectors are.
    pub fn scalarized(&self) -> Program {
        let mut locals = self.locals.clone();
        let first = locals.len();
        locals.push(INDEX);
        Program {
            body: one_by_one(&self.body, first),
            locals,
            ..self.clone()
        }
    }
}

fn lanes<T>(of: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(of)
}

/// The statement with the elements at the index of the invocation as such, also where it accesses them by that index.
fn with_own(statement: &Stmt) -> Stmt {
    match statement {
        Stmt::Write(slot, Expr::GlobalId, value) => Stmt::Put(*slot, own(value)),
        Stmt::Put(slot, value) => Stmt::Put(*slot, own(value)),
        Stmt::Set(local, value) => Stmt::Set(*local, own(value)),
        Stmt::If(condition, then, other) => Stmt::If(
            own(condition),
            then.iter().map(with_own).collect(),
            other.iter().map(with_own).collect(),
        ),
        other => other.clone(),
    }
}

fn own(expr: &Expr) -> Expr {
    match expr {
        Expr::Read(slot, index) if **index == Expr::GlobalId => Expr::ElementAtSelf(*slot),
        other => other.map(&mut own),
    }
}

fn is_put(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Put(..))
}

fn is_repeatable(statement: &Stmt) -> bool {
    match statement {
        Stmt::Set(..) => true,
        Stmt::If(_, then, other) => then.iter().chain(other).all(is_repeatable),
        _ => false,
    }
}

/// Whether no statement uses an element that an earlier one stores.
fn are_independent(puts: &[Stmt]) -> bool {
    puts.iter().enumerate().all(|(at, put)| {
        let Stmt::Put(stored, _) = put else {
            return false;
        };
        let mut independent = true;
        for later in &puts[at + 1..] {
            if let Stmt::Put(slot, value) = later {
                independent &= slot != stored;
                value.each(&mut |expr| independent &= *expr != Expr::ElementAtSelf(*stored));
            }
        }
        independent
    })
}

fn int(value: usize) -> Expr {
    Expr::Const(DType::S32, value as u64)
}

fn binary(op: Binary, left: Expr, right: Expr) -> Expr {
    Expr::Binary(op, Box::new(left), Box::new(right))
}

/// The code of one lane: its variables, and the index of the element that it works on.
struct Lane<'a> {
    lane: usize,
    locals: usize,
    loaded: &'a [usize],
}

impl Lane<'_> {
    fn local(&self, local: usize) -> usize {
        self.lane * self.locals + local
    }

    fn block(&self, block: &[Stmt]) -> Vec<Stmt> {
        block
            .iter()
            .map(|statement| self.statement(statement))
            .collect()
    }

    fn statement(&self, statement: &Stmt) -> Stmt {
        match statement {
            Stmt::Set(local, value) => Stmt::Set(self.local(*local), self.expr(value)),
            Stmt::If(condition, then, other) => {
                Stmt::If(self.expr(condition), self.block(then), self.block(other))
            }
            other => other.clone(),
        }
    }

    fn expr(&self, expr: &Expr) -> Expr {
        match expr {
            Expr::GlobalId => {
                let first = binary(Binary::Mul, Expr::GlobalId, int(LANES));
                binary(Binary::Add, first, int(self.lane))
            }
            Expr::Local(local) => Expr::Local(self.local(*local)),
            Expr::ElementAtSelf(slot) => {
                let at = self.loaded.iter().position(|loaded| loaded == slot);
                Expr::Local(LANES * (self.locals + at.unwrap_or(0)) + self.lane)
            }
            other => other.map(&mut |part| self.expr(part)),
        }
    }
}

impl Expr {
    /// The expression with other parts.
    fn map(&self, of: &mut impl FnMut(&Expr) -> Expr) -> Expr {
        match self {
            Expr::Read(slot, index) => Expr::Read(*slot, Box::new(of(index))),
            Expr::Unary(op, value) => Expr::Unary(*op, Box::new(of(value))),
            Expr::Cast(dtype, value) => Expr::Cast(*dtype, Box::new(of(value))),
            Expr::Bitcast(dtype, value) => Expr::Bitcast(*dtype, Box::new(of(value))),
            Expr::Plane(op, value) => Expr::Plane(*op, Box::new(of(value))),
            Expr::PlaneBroadcast(value, lane) => Expr::PlaneBroadcast(Box::new(of(value)), *lane),
            Expr::Binary(op, left, right) => binary(*op, of(left), of(right)),
            Expr::Select(condition, then, other) => Expr::Select(
                Box::new(of(condition)),
                Box::new(of(then)),
                Box::new(of(other)),
            ),
            Expr::Const(..)
            | Expr::Bool(_)
            | Expr::Scalar(_)
            | Expr::Local(_)
            | Expr::GlobalId
            | Expr::GroupId
            | Expr::LocalId
            | Expr::Len(_)
            | Expr::ElementAtSelf(_)
            | Expr::PlaneLane
            | Expr::PlaneSize => self.clone(),
        }
    }
}

/// The statements, with the index of the first element of a vector in the local `first`.
fn one_by_one(block: &[Stmt], first: usize) -> Vec<Stmt> {
    let start = |index: &Expr| Stmt::Set(first, binary(Binary::Mul, index.clone(), int(LANES)));
    let at = |lane| binary(Binary::Add, Expr::Local(first), int(lane));
    let mut body = Vec::with_capacity(block.len());
    for statement in block {
        match statement {
            Stmt::LoadVector(slot, index, locals) => {
                body.push(start(index));
                body.extend(
                    locals.iter().enumerate().map(|(lane, local)| {
                        Stmt::Set(*local, Expr::Read(*slot, Box::new(at(lane))))
                    }),
                );
            }
            Stmt::StoreVector(slot, index, values) => {
                body.push(start(index));
                body.extend(
                    values
                        .iter()
                        .enumerate()
                        .map(|(lane, value)| Stmt::Write(*slot, at(lane), value.clone())),
                );
            }
            Stmt::If(condition, then, other) => body.push(Stmt::If(
                condition.clone(),
                one_by_one(then, first),
                one_by_one(other, first),
            )),
            Stmt::For(local, from, to, inner) => body.push(Stmt::For(
                *local,
                from.clone(),
                to.clone(),
                one_by_one(inner, first),
            )),
            Stmt::While(round) => body.push(Stmt::While(Box::new(While {
                limit: round.limit.clone(),
                head: one_by_one(&round.head, first),
                condition: round.condition.clone(),
                body: one_by_one(&round.body, first),
            }))),
            other => body.push(other.clone()),
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(body: Vec<Stmt>) -> Program {
        Program {
            inputs: vec![DType::F32, DType::F32],
            outputs: vec![DType::F32],
            scalars: vec![DType::F32],
            locals: vec![Type::Of(DType::F32)],
            body,
            report: None,
            group: None,
        }
    }

    fn sum() -> Expr {
        binary(Binary::Add, Expr::ElementAtSelf(0), Expr::Local(0))
    }

    #[test]
    fn an_element_wise_program_is_repeated_for_each_lane() {
        let plain = program(vec![
            Stmt::Set(0, Expr::Read(1, Box::new(int(0)))),
            Stmt::Put(2, sum()),
        ]);
        let vectors = plain.vectorized().unwrap();
        assert_eq!(vectors.vectors(), [0, 2]);
        assert_eq!((vectors.check(), vectors.locals.len()), (Ok(()), 8));
        assert_eq!(vectors.body.len(), 1 + 4 + 1);
        let back = vectors.scalarized();
        assert_eq!((back.check(), back.vectors()), (Ok(()), vec![]));
    }

    #[test]
    fn an_access_by_the_index_of_the_invocation_is_one_by_vectors() {
        let read = Expr::Read(2, Box::new(Expr::GlobalId));
        let in_place = program(vec![Stmt::Write(2, Expr::GlobalId, read)]);
        let vectors = in_place.vectorized().unwrap();
        assert_eq!((vectors.vectors(), vectors.body.len()), (vec![2], 2));
        assert_eq!(vectors.check(), Ok(()));
    }

    #[test]
    fn other_programs_are_not() {
        let put = Stmt::Put(2, sum());
        let write = Stmt::Write(2, int(0), sum());
        let read = Expr::Read(0, Box::new(int(0)));
        let costly = binary(Binary::Rem, sum(), sum());
        for body in [
            vec![put.clone(), Stmt::Set(0, sum())],
            vec![write.clone()],
            vec![write, put.clone()],
            vec![Stmt::Set(0, read), put.clone()],
            vec![Stmt::Put(2, costly)],
            vec![Stmt::If(Expr::Bool(true), vec![put.clone()], vec![])],
            vec![Stmt::For(0, int(0), int(9), vec![]), put.clone()],
            vec![put.clone(), put],
        ] {
            assert_eq!(program(body).vectorized(), None);
        }
    }

    #[test]
    fn a_buffer_is_accessed_by_vectors_or_by_elements() {
        let load = Stmt::LoadVector(0, int(0), [0; LANES]);
        let store = Stmt::StoreVector(2, int(0), Box::new(lanes(|_| Expr::Local(0))));
        assert_eq!(program(vec![load.clone(), store.clone()]).check(), Ok(()));
        for other in [
            Stmt::Put(2, Expr::Local(0)),
            Stmt::Write(2, int(0), Expr::Local(0)),
            Stmt::Set(0, Expr::ElementAtSelf(0)),
            Stmt::Set(0, Expr::Read(0, Box::new(int(0)))),
            Stmt::StoreVector(1, int(0), Box::new(lanes(|_| Expr::Local(0)))),
            Stmt::StoreVector(2, Expr::Local(0), Box::new(lanes(|_| Expr::Local(0)))),
            Stmt::StoreVector(2, int(0), Box::new(lanes(int))),
            Stmt::LoadVector(0, int(0), [0, 0, 0, 7]),
            Stmt::LoadVector(9, int(0), [0; LANES]),
        ] {
            let body = vec![load.clone(), store.clone(), other];
            assert!(program(body).check().is_err());
        }
    }
}
