//! A kernel as a small typed tree: what Elixir's typer makes of a kernel for one signature, and what
//! `runtime/emit.rs` makes CubeCL's IR of. A tree that passed `Program::new` is sound: each slot
//! exists, types agree, and it is neither too deep nor too large.

use crate::dtype::{DType, Kind};

/// Deeper trees than this come from no source that a person writes.
const MAX_DEPTH: usize = 200;
const MAX_NODES: usize = 20_000;

/// The type of a value inside of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    Bool,
    Of(DType),
}

/// Positions and lengths.
pub const POSITION: Type = Type::Of(DType::S32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Neg,
    Not,
    BitNot,
    Abs,
    Exp,
    Log,
    Log1p,
    Sin,
    Cos,
    Tan,
    Tanh,
    Sinh,
    Cosh,
    Asin,
    Acos,
    Atan,
    Sqrt,
    Rsqrt,
    Round,
    Floor,
    Ceil,
    Trunc,
    Erf,
    IsNan,
    IsInf,
    CountOnes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Pow,
    Atan2,
    Min,
    Max,
    And,
    Or,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// An element by its bits.
    Const(DType, u64),
    Bool(bool),
    Scalar(usize),
    Local(usize),
    /// The number of this thread.
    Position,
    /// Elements of a buffer.
    Len(usize),
    /// The element of a buffer at the thread's own position.
    Own(usize),
    /// Zero outside of the buffer.
    Read(usize, Box<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Cast(DType, Box<Expr>),
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stmt {
    Set(usize, Expr),
    /// Into an output at the thread's own position.
    Put(usize, Expr),
    /// Nothing outside of the buffer.
    Write(usize, Expr, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// A local runs from one value to another, both included; nothing where the second is less.
    For(usize, Expr, Expr, Vec<Stmt>),
}

/// Buffers are numbered inputs first, outputs behind them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    pub inputs: Vec<DType>,
    pub outputs: Vec<DType>,
    pub scalars: Vec<DType>,
    pub locals: Vec<Type>,
    pub body: Vec<Stmt>,
    /// The output that is told of an index outside of its buffer, as `REPORT` elements of `s32`:
    /// 1, the number of the buffer, the index, the position.
    pub report: Option<usize>,
}

pub const REPORT: u64 = 4;

/// What is wrong with a tree. Elixir's typer makes none such: this is for whoever gets past it.
pub type Unsound = &'static str;

impl Program {
    pub fn check(&self) -> Result<(), Unsound> {
        if self.outputs.is_empty() {
            return Err("a kernel without an output");
        }
        let mut check = Check {
            program: self,
            nodes: 0,
        };
        if let Some(slot) = self.report {
            expect(POSITION, check.output(slot)?)?;
        }
        check.block(&self.body, 0)
    }

    pub fn buffer(&self, slot: usize) -> Option<DType> {
        let outputs = slot.checked_sub(self.inputs.len());
        let output = || outputs.and_then(|at| self.outputs.get(at));
        self.inputs.get(slot).or_else(output).copied()
    }

    /// Every type that the device has to calculate with.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut all = [&self.inputs[..], &self.outputs, &self.scalars].concat();
        all.extend(self.locals.iter().filter_map(|local| match local {
            Type::Of(dtype) => Some(*dtype),
            Type::Bool => None,
        }));
        self.each(&mut |expr| {
            if let Expr::Cast(dtype, _) | Expr::Const(dtype, _) = expr {
                all.push(*dtype);
            }
        });
        all.sort_by_key(|dtype| *dtype as usize);
        all.dedup();
        all
    }

    /// Buffers of which each thread uses its own element: they have one for each.
    pub fn own(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        self.each(&mut |expr| {
            if let Expr::Own(slot) = expr {
                slots.push(*slot);
            }
        });
        statements(&self.body, &mut |statement| {
            if let Stmt::Put(slot, _) = statement {
                slots.push(*slot);
            }
        });
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    fn each(&self, visit: &mut impl FnMut(&Expr)) {
        statements(&self.body, &mut |statement| match statement {
            Stmt::Set(_, value) | Stmt::Put(_, value) | Stmt::If(value, _, _) => {
                value.each(visit);
            }
            Stmt::Write(_, a, b) | Stmt::For(_, a, b, _) => {
                a.each(visit);
                b.each(visit);
            }
        });
    }
}

fn statements(block: &[Stmt], visit: &mut impl FnMut(&Stmt)) {
    for statement in block {
        visit(statement);
        match statement {
            Stmt::If(_, then, other) => {
                statements(then, visit);
                statements(other, visit);
            }
            Stmt::For(_, _, _, body) => statements(body, visit),
            _ => {}
        }
    }
}

impl Expr {
    fn each(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Read(_, a) | Expr::Unary(_, a) | Expr::Cast(_, a) => a.each(visit),
            Expr::Binary(_, a, b) => {
                a.each(visit);
                b.each(visit);
            }
            Expr::Select(a, b, c) => {
                a.each(visit);
                b.each(visit);
                c.each(visit);
            }
            _ => {}
        }
    }
}

struct Check<'a> {
    program: &'a Program,
    nodes: usize,
}

impl Check<'_> {
    fn enter(&mut self, depth: usize) -> Result<(), Unsound> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err("a kernel that is too deep or too large");
        }
        Ok(())
    }

    fn block(&mut self, block: &[Stmt], depth: usize) -> Result<(), Unsound> {
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
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::Write(slot, index, value) => {
                self.index(index, depth)?;
                let found = self.expr(value, depth)?;
                expect(self.output(*slot)?, found)
            }
            Stmt::If(condition, then, other) => {
                expect(Type::Bool, self.expr(condition, depth)?)?;
                self.block(then, depth)?;
                self.block(other, depth)
            }
            Stmt::For(local, from, to, body) => {
                expect(POSITION, self.local(*local)?)?;
                expect(POSITION, self.expr(from, depth)?)?;
                expect(POSITION, self.expr(to, depth)?)?;
                self.block(body, depth)
            }
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

    fn output(&self, slot: usize) -> Result<Type, Unsound> {
        match slot >= self.program.inputs.len() {
            true => self.buffer(slot),
            false => Err("a write into an input"),
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
            Expr::Position => POSITION,
            Expr::Len(slot) => {
                self.buffer(*slot)?;
                POSITION
            }
            Expr::Own(slot) => self.buffer(*slot)?,
            Expr::Read(slot, index) => {
                self.index(index, depth)?;
                self.buffer(*slot)?
            }
            Expr::Cast(dtype, value) => {
                self.expr(value, depth)?;
                Type::Of(*dtype)
            }
            Expr::Select(condition, then, other) => {
                expect(Type::Bool, self.expr(condition, depth)?)?;
                let then = self.expr(then, depth)?;
                expect(then, self.expr(other, depth)?)?;
                then
            }
            Expr::Unary(op, value) => unary(*op, self.expr(value, depth)?)?,
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.expr(left, depth)?, self.expr(right, depth)?);
                expect(left, right)?;
                binary(*op, left)?
            }
        })
    }
}

fn expect(expected: Type, found: Type) -> Result<(), Unsound> {
    match expected == found {
        true => Ok(()),
        false => Err("types that do not agree"),
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
    match fits {
        true => Ok(result),
        false => Err("an operator on a type that it does not take"),
    }
}

fn binary(op: Binary, value: Type) -> Result<Type, Unsound> {
    use Binary::*;
    let number = kind(value).is_some();
    let integer = number && kind(value) != Some(Kind::Float);
    let (fits, result) = match op {
        And | Or => (!number, Type::Bool),
        BitAnd | BitOr | BitXor | Shl | Shr => (integer, value),
        Pow | Atan2 => (number && !integer, value),
        Add | Sub | Mul | Div | Rem | Min | Max => (number, value),
        Eq | Ne | Lt | Le | Gt | Ge => (number, Type::Bool),
    };
    match fits {
        true => Ok(result),
        false => Err("an operator on a type that it does not take"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;

    fn program(body: Vec<Stmt>) -> Program {
        Program {
            inputs: vec![F32, S32],
            outputs: vec![F32],
            scalars: vec![F32],
            locals: vec![POSITION],
            body,
            report: None,
        }
    }

    fn boxed(expr: Expr) -> Box<Expr> {
        Box::new(expr)
    }

    #[test]
    fn what_agrees_passes() {
        let value = Expr::Binary(Binary::Mul, boxed(Expr::Scalar(0)), boxed(Expr::Own(0)));
        let body = vec![
            Stmt::Set(0, Expr::Len(1)),
            Stmt::Put(2, value.clone()),
            Stmt::Write(2, Expr::Local(0), value),
        ];
        let program = program(body);
        assert_eq!(program.check(), Ok(()));
        assert_eq!(program.own(), [0, 2]);
        assert_eq!(program.dtypes(), [F32, S32]);
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let wrong = [
            Stmt::Put(0, Expr::Own(0)),
            Stmt::Put(3, Expr::Own(0)),
            Stmt::Put(2, Expr::Own(1)),
            Stmt::Put(2, Expr::Scalar(1)),
            Stmt::Put(2, Expr::Local(1)),
            Stmt::Write(2, Expr::Own(0), Expr::Own(0)),
            Stmt::If(Expr::Own(0), vec![], vec![]),
            Stmt::For(0, Expr::Own(0), Expr::Position, vec![]),
            Stmt::Put(2, Expr::Unary(Unary::BitNot, boxed(Expr::Own(0)))),
            Stmt::Put(
                2,
                Expr::Binary(Binary::Shl, boxed(Expr::Own(0)), boxed(Expr::Own(0))),
            ),
            Stmt::Put(
                2,
                Expr::Binary(Binary::Add, boxed(Expr::Own(0)), boxed(Expr::Own(1))),
            ),
        ];
        for statement in wrong {
            assert!(
                program(vec![statement.clone()]).check().is_err(),
                "{statement:?}"
            );
        }
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused() {
        let mut deep = Expr::Own(0);
        for _ in 0..300 {
            deep = Expr::Unary(Unary::Neg, boxed(deep));
        }
        assert!(program(vec![Stmt::Put(2, deep)]).check().is_err());
        let many = vec![Stmt::Put(2, Expr::Own(0)); 20_000];
        assert!(program(many).check().is_err());
    }
}
