//! Decodes kernel programs: the tuples that Elixir's `Kernel.Typer` makes become core's tree.

use std::cell::Cell;

use ex_cubecl_core::DType;
use ex_cubecl_core::program::tree::{
    Atomic, Binary, Expr, Group, LANES, Plane, Program, Stmt, Type, Unary, While,
};
use rustler::{Decoder, Error, NifResult, Term};

use crate::atoms;
use crate::number;
use crate::term::wire::{ListOf, Wire};

/// The decoder is recursive, so its depth must be bounded: the stack of a dirty scheduler has 320 KB. Kernels written by hand
/// are not nested as deep.
const MAX_DEPTH: usize = 200;

/// Core refuses trees that are far smaller than this, with a better error.
const MAX_NODES: usize = 500_000;

/// How many more levels and nodes a tree may have from here.
#[derive(Clone, Copy)]
struct Budget<'l> {
    depth: usize,
    nodes: &'l Cell<usize>,
}

impl Budget<'_> {
    fn descend(self) -> NifResult<Self> {
        let nodes = self.nodes.get().checked_sub(1).ok_or(Error::BadArg)?;
        self.nodes.set(nodes);
        let depth = self.depth.checked_sub(1).ok_or(Error::BadArg)?;
        Ok(Budget { depth, ..self })
    }
}

impl<'a> Decoder<'a> for Wire<Program> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        type Types = ListOf<Wire<DType>>;
        type Locals = ListOf<Wire<Type>>;
        type ProgramTerms<'a> = (
            Types,
            Types,
            Types,
            Locals,
            Term<'a>,
            Option<u32>,
            Option<Workgroup>,
        );
        type Workgroup = (u32, ListOf<(Wire<DType>, u32)>);
        let (inputs, outputs, scalars, locals, body, report, group) =
            term.decode::<ProgramTerms>()?;
        let nodes = Cell::new(MAX_NODES);
        let budget = Budget {
            depth: MAX_DEPTH,
            nodes: &nodes,
        };
        let dtypes = |list: Types| list.0.into_iter().map(|dtype| dtype.0).collect();
        Ok(Wire(Program {
            inputs: dtypes(inputs),
            outputs: dtypes(outputs),
            scalars: dtypes(scalars),
            locals: locals.0.into_iter().map(|local| local.0).collect(),
            body: block(body, budget)?,
            report: report.map(|slot| slot as usize),
            group: group.map(|(threads, shared)| Group {
                threads,
                shared: shared.iter().map(|(dtype, len)| (dtype.0, *len)).collect(),
            }),
        }))
    }
}

impl<'a> Decoder<'a> for Wire<Type> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::bool() == term {
            return Ok(Wire(Type::Bool));
        }
        Ok(Wire(Type::Of(term.decode::<Wire<DType>>()?.0)))
    }
}

#[inline(never)]
fn name(term: Term<'_>) -> NifResult<String> {
    term.atom_to_string()
}

#[inline(never)]
fn block(term: Term<'_>, budget: Budget<'_>) -> NifResult<Vec<Stmt>> {
    let statements = term.decode::<ListOf<Term>>()?;
    let mut decoded = Vec::with_capacity(statements.0.len());
    for term in statements.0 {
        decoded.push(statement(term, budget)?);
    }
    Ok(decoded)
}

// The recursive function does its non-recursive work in separate functions, so that a level uses little of the stack.
#[inline(never)]
fn statement(term: Term<'_>, budget: Budget<'_>) -> NifResult<Stmt> {
    let budget = budget.descend()?;
    if term.is_atom() {
        return match name(term)?.as_str() {
            "barrier" => Ok(Stmt::Barrier),
            _ => Err(Error::BadArg),
        };
    }
    let parts = rustler::types::tuple::get_tuple(term)?;
    let [tag, rest @ ..] = parts.as_slice() else {
        return Err(Error::BadArg);
    };
    let tag = name(*tag)?;
    match (tag.as_str(), rest) {
        ("if", [condition, then, other]) => branch(*condition, *then, *other, budget),
        ("for", [local, from, to, body]) => for_loop(*local, *from, *to, *body, budget),
        ("while", [limit, head, condition, body]) => {
            while_loop(*limit, *head, (*condition, *body), budget)
        }
        (tag, rest) => single(tag, rest, budget),
    }
}

#[inline(never)]
fn branch(
    condition: Term<'_>,
    then: Term<'_>,
    other: Term<'_>,
    budget: Budget<'_>,
) -> NifResult<Stmt> {
    let (then, other) = (block(then, budget)?, block(other, budget)?);
    Ok(Stmt::If(expr(condition, budget)?, then, other))
}

#[inline(never)]
fn for_loop(
    local: Term<'_>,
    from: Term<'_>,
    to: Term<'_>,
    body: Term<'_>,
    budget: Budget<'_>,
) -> NifResult<Stmt> {
    let body = block(body, budget)?;
    let (from, to) = (expr(from, budget)?, expr(to, budget)?);
    Ok(Stmt::For(slot(local)?, from, to, body))
}

#[inline(never)]
fn while_loop(
    limit: Term<'_>,
    head: Term<'_>,
    (condition, body): (Term<'_>, Term<'_>),
    budget: Budget<'_>,
) -> NifResult<Stmt> {
    let (head, body) = (block(head, budget)?, block(body, budget)?);
    let (limit, condition) = (expr(limit, budget)?, expr(condition, budget)?);
    Ok(Stmt::While(Box::new(While {
        limit,
        head,
        condition,
        body,
    })))
}

/// A statement that contains no other statements.
#[inline(never)]
fn single(tag: &str, parts: &[Term<'_>], budget: Budget<'_>) -> NifResult<Stmt> {
    Ok(match (tag, parts) {
        ("set", [local, value]) => Stmt::Set(slot(*local)?, expr(*value, budget)?),
        ("put", [output, value]) => Stmt::Put(slot(*output)?, expr(*value, budget)?),
        ("write", [output, index, value]) => {
            let index = expr(*index, budget)?;
            Stmt::Write(slot(*output)?, index, expr(*value, budget)?)
        }
        ("atomic", [op, output, index, value, before]) => {
            let (index, value) = (expr(*index, budget)?, expr(*value, budget)?);
            let before = before.decode::<Option<u32>>()?.map(|local| local as usize);
            Stmt::Atomic(atomic(&name(*op)?)?, slot(*output)?, index, value, before)
        }
        ("load_vector", [buffer, index, locals]) => {
            let locals = four(*locals, slot)?;
            Stmt::LoadVector(slot(*buffer)?, expr(*index, budget)?, locals)
        }
        ("store_vector", [output, index, values]) => {
            let values = four(*values, |value| expr(value, budget))?;
            Stmt::StoreVector(slot(*output)?, expr(*index, budget)?, Box::new(values))
        }
        _ => return Err(Error::BadArg),
    })
}

/// A list with a term for each element of a vector.
#[inline(never)]
fn four<'a, T>(term: Term<'a>, of: impl Fn(Term<'a>) -> NifResult<T>) -> NifResult<[T; LANES]> {
    let terms = term.decode::<ListOf<Term>>()?.0;
    let all = terms.into_iter().map(of).collect::<NifResult<Vec<T>>>()?;
    all.try_into().map_err(|_| Error::BadArg)
}

#[inline(never)]
fn slot(term: Term<'_>) -> NifResult<usize> {
    Ok(term.decode::<u32>()? as usize)
}

#[inline(never)]
fn expr(term: Term<'_>, budget: Budget<'_>) -> NifResult<Expr> {
    let budget = budget.descend()?;
    if term.is_atom() {
        return match name(term)?.as_str() {
            "global_id" => Ok(Expr::GlobalId),
            "group_id" => Ok(Expr::GroupId),
            "local_id" => Ok(Expr::LocalId),
            "plane_lane" => Ok(Expr::PlaneLane),
            "plane_size" => Ok(Expr::PlaneSize),
            _ => Err(Error::BadArg),
        };
    }
    let parts = rustler::types::tuple::get_tuple(term)?;
    let [tag, rest @ ..] = parts.as_slice() else {
        return Err(Error::BadArg);
    };
    let boxed = |term: Term<'_>| expr(term, budget).map(Box::new);
    Ok(match (name(*tag)?.as_str(), rest) {
        ("const", [dtype, value]) => {
            let dtype = dtype.decode::<Wire<DType>>()?.0;
            Expr::Const(dtype, number::bits(*value, dtype).ok_or(Error::BadArg)?)
        }
        ("bool", [value]) => Expr::Bool(value.decode()?),
        ("scalar", [number]) => Expr::Scalar(slot(*number)?),
        ("local", [local]) => Expr::Local(slot(*local)?),
        ("len", [buffer]) => Expr::Len(slot(*buffer)?),
        ("element_at_self", [buffer]) => Expr::ElementAtSelf(slot(*buffer)?),
        ("read", [buffer, index]) => Expr::Read(slot(*buffer)?, boxed(*index)?),
        ("cast", [dtype, value]) => Expr::Cast(dtype.decode::<Wire<DType>>()?.0, boxed(*value)?),
        ("bitcast", [dtype, value]) => {
            Expr::Bitcast(dtype.decode::<Wire<DType>>()?.0, boxed(*value)?)
        }
        ("select", [condition, then, other]) => {
            Expr::Select(boxed(*condition)?, boxed(*then)?, boxed(*other)?)
        }
        ("plane", [op, value]) => Expr::Plane(plane(&name(*op)?)?, boxed(*value)?),
        ("plane_broadcast", [value, lane]) => Expr::PlaneBroadcast(boxed(*value)?, lane.decode()?),
        ("unary", [op, value]) => Expr::Unary(unary(&name(*op)?)?, boxed(*value)?),
        ("binary", [op, left, right]) => {
            Expr::Binary(binary(&name(*op)?)?, boxed(*left)?, boxed(*right)?)
        }
        _ => return Err(Error::BadArg),
    })
}

fn atomic(name: &str) -> NifResult<Atomic> {
    Ok(match name {
        "add" => Atomic::Add,
        "min" => Atomic::Min,
        "max" => Atomic::Max,
        "band" => Atomic::And,
        "bor" => Atomic::Or,
        "bxor" => Atomic::Xor,
        "exchange" => Atomic::Exchange,
        _ => return Err(Error::BadArg),
    })
}

fn plane(name: &str) -> NifResult<Plane> {
    Ok(match name {
        "sum" => Plane::Sum,
        "product" => Plane::Product,
        "min" => Plane::Min,
        "max" => Plane::Max,
        _ => return Err(Error::BadArg),
    })
}

fn unary(name: &str) -> NifResult<Unary> {
    Ok(match name {
        "neg" => Unary::Neg,
        "not" => Unary::Not,
        "bnot" => Unary::BitNot,
        "abs" => Unary::Abs,
        "sqrt" => Unary::Sqrt,
        "round" => Unary::Round,
        "floor" => Unary::Floor,
        "ceil" => Unary::Ceil,
        "trunc" => Unary::Trunc,
        "nan?" => Unary::IsNan,
        "infinite?" => Unary::IsInf,
        "count_ones" => Unary::CountOnes,
        _ => return Err(Error::BadArg),
    })
}

fn binary(name: &str) -> NifResult<Binary> {
    Ok(match name {
        "add" => Binary::Add,
        "sub" => Binary::Sub,
        "mul" => Binary::Mul,
        "div" => Binary::Div,
        "rem" => Binary::Rem,
        "min" => Binary::Min,
        "max" => Binary::Max,
        "and" => Binary::And,
        "or" => Binary::Or,
        "band" => Binary::BitAnd,
        "bor" => Binary::BitOr,
        "bxor" => Binary::BitXor,
        "shl" => Binary::Shl,
        "shr" => Binary::Shr,
        "eq" => Binary::Eq,
        "ne" => Binary::Ne,
        "lt" => Binary::Lt,
        "le" => Binary::Le,
        "gt" => Binary::Gt,
        "ge" => Binary::Ge,
        _ => return Err(Error::BadArg),
    })
}
