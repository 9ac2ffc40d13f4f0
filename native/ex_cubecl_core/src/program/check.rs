//! Validates a tree: each slot exists, types agree, and it is neither too deep nor too large.

use crate::dtype::{DType, Kind};
use crate::program::tree::{Atomic, Binary, Expr, INDEX, Program, Stmt, Type, Unary};
use crate::program::uniformity::Uniformity;
use crate::program::vectors::has_vectors;

/// No handwritten source is nested deeper than this.
const MAX_DEPTH: usize = 200;
const MAX_NODES: usize = 20_000;
/// The largest total cost of all branches. Time and memory of CubeCL's optimizer grow with the square of the number
/// of branches: 1,000 take it about a second, 4,000 half a minute and two gigabytes.
const MAX_BRANCHES: usize = 1_000 * BRANCH;
const BRANCH: usize = 2;
/// The steps of a division of floats (`lower/remainder.rs`).
const REMAINDER: usize = 7 * BRANCH;
const READ: usize = 1;
/// A read that reports an out-of-bounds index, which takes a branch and four stores.
const CHECKED_READ: usize = 4;

/// Why a tree is invalid. Elixir's type checker makes no invalid tree: this guards against callers
/// that bypass it.
pub type Unsound = &'static str;

impl Program {
    /// Whether the program is valid.
    pub fn check(&self) -> Result<(), Unsound> {
        if self.outputs.is_empty() {
            return Err("a kernel without an output");
        }
        let mut check = Check::of(self);
        if let Some(slot) = self.report {
            expect(INDEX, check.output(slot)?)?;
        }
        check.vectors()?;
        check.group()?;
        check.block(&self.body, 0)?;
        if Uniformity::of(self).holds(&self.body, true) {
            Ok(())
        } else {
            Err("a barrier or an operation on a plane that not all threads of a group reach")
        }
    }
}

struct Check<'a> {
    program: &'a Program,
    /// The buffers that are accessed by vectors.
    vectors: Vec<usize>,
    nodes: usize,
    branches: usize,
}

impl<'a> Check<'a> {
    pub fn of(program: &'a Program) -> Self {
        Check {
            program,
            vectors: program.vectors(),
            nodes: 0,
            branches: 0,
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), Unsound> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err("it is nested deeper than 200 levels: use variables");
        }
        if self.nodes > MAX_NODES {
            Err("it has more than 20,000 operations with all that it calls: use loops")
        } else {
            Ok(())
        }
    }

    /// Adds the cost of a branch.
    fn branch(&mut self, cost: usize) -> Result<(), Unsound> {
        self.branches += cost;
        if self.branches > MAX_BRANCHES {
            Err(
                "it has more than 1,000 branches, which are `if`, `for`, twice `while` and each write by an index; two reads count for one: use loops",
            )
        } else {
            Ok(())
        }
    }

    fn vectors(&self) -> Result<(), Unsound> {
        let fit = |slot: &usize| self.program.buffer(*slot).is_some_and(has_vectors);
        let bound = |slot: &usize| *slot < self.program.buffers();
        if !self.vectors.is_empty() && self.program.report.is_some() {
            Err("vectors in a kernel that reports an index out of bounds")
        } else if self.vectors.iter().all(|slot| fit(slot) && bound(slot)) {
            Ok(())
        } else {
            Err("vectors of a type of which there are none")
        }
    }

    pub fn group(&self) -> Result<(), Unsound> {
        let Some(group) = &self.program.group else {
            return Ok(());
        };
        let empty = group.shared.iter().any(|(_, length)| *length == 0);
        if group.threads == 0 || empty {
            Err("a group without threads, or shared memory without elements")
        } else {
            Ok(())
        }
    }

    pub fn block(&mut self, block: &[Stmt], depth: usize) -> Result<(), Unsound> {
        for statement in block {
            self.enter(depth)?;
            self.statement(statement, depth + 1)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt, depth: usize) -> Result<(), Unsound> {
        match statement {
            Stmt::Set(local, value) => {
                let found = self.expr(value, depth)?;
                expect(self.local(*local)?, found)
            }
            Stmt::Put(slot, value) => {
                self.grouped(false)?;
                self.by_element(*slot)?;
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::Write(slot, index, value) => {
                self.branch(BRANCH)?;
                self.by_element(*slot)?;
                self.index(index, depth)?;
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::LoadVector(slot, index, locals) => {
                self.branch(READ)?;
                expect(INDEX, self.expr(index, depth)?)?;
                let found = self.buffer(*slot)?;
                locals
                    .iter()
                    .try_for_each(|local| expect(self.local(*local)?, found))
            }
            Stmt::StoreVector(slot, index, values) => {
                self.branch(BRANCH)?;
                expect(INDEX, self.expr(index, depth)?)?;
                let place = self.output(*slot)?;
                values
                    .iter()
                    .try_for_each(|value| expect(place, self.expr(value, depth)?))
            }
            Stmt::Atomic(op, slot, index, value, before) => {
                self.branch(BRANCH)?;
                self.index(index, depth)?;
                let found = self.expr(value, depth)?;
                self.by_element(*slot)?;
                let place = self.output(*slot)?;
                expect(place, found)?;
                if let Some(local) = before {
                    expect(self.local(*local)?, place)?;
                }
                atomic(*op, place)
            }
            Stmt::Barrier => self.grouped(true),
            Stmt::If(condition, then, other) => {
                self.branch(BRANCH)?;
                expect(Type::Bool, self.expr(condition, depth)?)?;
                self.block(then, depth)?;
                self.block(other, depth)
            }
            Stmt::For(local, from, to, body) => {
                self.branch(BRANCH)?;
                expect(INDEX, self.local(*local)?)?;
                expect(INDEX, self.expr(from, depth)?)?;
                expect(INDEX, self.expr(to, depth)?)?;
                self.block(body, depth)
            }
            Stmt::While(round) => {
                // The loop, and the end of it in the middle.
                self.branch(2 * BRANCH)?;
                expect(INDEX, self.expr(&round.limit, depth)?)?;
                self.block(&round.head, depth)?;
                expect(Type::Bool, self.expr(&round.condition, depth)?)?;
                self.block(&round.body, depth)
            }
        }
    }

    fn grouped(&self, wanted: bool) -> Result<(), Unsound> {
        match (self.program.group.is_some(), wanted) {
            (true, false) => Err("a thread's own position in a kernel of groups"),
            (false, true) => Err("a word of groups in a kernel without"),
            _ => Ok(()),
        }
    }

    fn by_element(&self, slot: usize) -> Result<(), Unsound> {
        if self.vectors.contains(&slot) {
            Err("a buffer that is accessed both by vectors and by elements")
        } else {
            Ok(())
        }
    }

    fn local(&self, local: usize) -> Result<Type, Unsound> {
        let found = self.program.locals.get(local).copied();
        found.ok_or("a local variable that is none")
    }

    fn buffer(&self, slot: usize) -> Result<Type, Unsound> {
        let found = self.program.buffer(slot).map(Type::Of);
        found.ok_or("a buffer that is none")
    }

    pub fn output(&self, slot: usize) -> Result<Type, Unsound> {
        if slot >= self.program.inputs.len() {
            self.buffer(slot)
        } else {
            Err("a write into an input")
        }
    }

    fn index(&mut self, index: &Expr, depth: usize) -> Result<(), Unsound> {
        match self.expr(index, depth)? {
            Type::Of(dtype) if dtype.kind() != Kind::Float => Ok(()),
            _ => Err("an index that is no integer"),
        }
    }

    fn expr(&mut self, expr: &Expr, depth: usize) -> Result<Type, Unsound> {
        self.enter(depth)?;
        let depth = depth + 1;
        Ok(match expr {
            Expr::Const(dtype, _) => Type::Of(*dtype),
            Expr::Bool(_) => Type::Bool,
            Expr::Scalar(slot) => {
                let found = self.program.scalars.get(*slot).copied();
                Type::Of(found.ok_or("a number that is none")?)
            }
            Expr::Local(local) => self.local(*local)?,
            Expr::GlobalId => {
                self.grouped(false)?;
                INDEX
            }
            Expr::GroupId | Expr::LocalId => {
                self.grouped(true)?;
                INDEX
            }
            Expr::Len(slot) => {
                self.buffer(*slot)?;
                INDEX
            }
            Expr::ElementAtSelf(slot) => {
                self.grouped(false)?;
                self.by_element(*slot)?;
                self.buffer(*slot)?
            }
            Expr::Read(slot, index) => {
                self.branch(match self.program.report {
                    Some(_) => CHECKED_READ,
                    None => READ,
                })?;
                self.by_element(*slot)?;
                self.index(index, depth)?;
                self.buffer(*slot)?
            }
            Expr::Cast(dtype, value) => {
                self.expr(value, depth)?;
                Type::Of(*dtype)
            }
            Expr::Bitcast(dtype, value) => match self.expr(value, depth)? {
                Type::Of(from) if from.size() == dtype.size() => Type::Of(*dtype),
                _ => return Err("the bits of a type of another size"),
            },
            Expr::Select(condition, then, other) => {
                expect(Type::Bool, self.expr(condition, depth)?)?;
                let then = self.expr(then, depth)?;
                expect(then, self.expr(other, depth)?)?;
                then
            }
            Expr::PlaneLane | Expr::PlaneSize => {
                self.grouped(true)?;
                INDEX
            }
            Expr::Plane(_, value) | Expr::PlaneBroadcast(value, _) => {
                self.grouped(true)?;
                let found = self.expr(value, depth)?;
                let is_word = [DType::F32, DType::S32, DType::U32].map(Type::Of);
                if !is_word.contains(&found) {
                    return Err("an operation on a plane of a type that it does not take");
                }
                found
            }
            Expr::Unary(op, value) => unary(*op, self.expr(value, depth)?)?,
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.expr(left, depth)?, self.expr(right, depth)?);
                expect(left, right)?;
                if *op == Binary::Rem && kind(left) == Some(Kind::Float) {
                    self.branch(REMAINDER)?;
                }
                binary(*op, left)?
            }
        })
    }
}

fn expect(expected: Type, found: Type) -> Result<(), Unsound> {
    if expected == found {
        Ok(())
    } else {
        Err("types that do not agree")
    }
}

fn kind(value: Type) -> Option<Kind> {
    match value {
        Type::Bool => None,
        Type::Of(dtype) => Some(dtype.kind()),
    }
}

fn unary(op: Unary, value: Type) -> Result<Type, Unsound> {
    use Unary::*;
    let (fits, result) = match (op, kind(value)) {
        (Not, kind) => (kind.is_none(), Type::Bool),
        (Neg | Abs, kind) => (matches!(kind, Some(Kind::Float | Kind::Signed)), value),
        (BitNot | CountOnes, kind) => (matches!(kind, Some(Kind::Signed | Kind::Unsigned)), value),
        (IsNan | IsInf, kind) => (kind == Some(Kind::Float), Type::Bool),
        (_, kind) => (kind == Some(Kind::Float), value),
    };
    if fits {
        Ok(result)
    } else {
        Err("an operator on a type that it does not take")
    }
}

fn atomic(op: Atomic, place: Type) -> Result<(), Unsound> {
    use Atomic::*;
    let integer = matches!(kind(place), Some(Kind::Signed | Kind::Unsigned));
    let fits = match op {
        And | Or | Xor => integer,
        Add | Min | Max | Exchange => kind(place).is_some(),
    };
    if fits {
        Ok(())
    } else {
        Err("an atomic operation on a type that it does not take")
    }
}

fn binary(op: Binary, value: Type) -> Result<Type, Unsound> {
    use Binary::*;
    let number = kind(value).is_some();
    let integer = number && kind(value) != Some(Kind::Float);
    let (fits, result) = match op {
        And | Or => (!number, Type::Bool),
        BitAnd | BitOr | BitXor | Shl | Shr => (integer, value),
        Add | Sub | Mul | Div | Rem | Min | Max => (number, value),
        Eq | Ne | Lt | Le | Gt | Ge => (number, Type::Bool),
    };
    if fits {
        Ok(result)
    } else {
        Err("an operator on a type that it does not take")
    }
}
