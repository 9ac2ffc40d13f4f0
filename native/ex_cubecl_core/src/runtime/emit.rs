//! From the tree of a kernel to CubeCL's IR, which each runtime compiles for its device.
//!
//! A thread goes over the positions `own, own + threads, ...` below a number that comes with the
//! launch; in a kernel of groups it has one place in one group. Whatever a tree says, an index is compared with its buffer's length before it is used:
//! reads outside give zero, writes outside do nothing.

use std::sync::Arc;

use cubecl::ir::features::AtomicUsage;
use cubecl::ir::{
    Arithmetic, AtomicOp, BinaryOperator, Bitwise, Branch, Builtin, Comparison, ConstantValue,
    ElemType, FloatKind, If, IfElse, IndexAssignOperator, IndexOperator, Instruction, IntKind,
    Operation, Operator, RangeLoop, Scope, Select, StorageType, Synchronization, UIntKind,
    UnaryOperator, Variable,
};
use cubecl::prelude::*;

use super::kernels::{MAX_CUBES, THREADS, Window};
use crate::dtype::{DType, Kind};
use crate::kernel::tree::{Atomic, Binary, Expr, Group, Program, Stmt, Type, Unary};
use crate::numeric;

type IrType = cubecl::ir::Type;

/// Along one axis of a launch.
const MOST_CUBES: u32 = 65_535;

const U32: ElemType = ElemType::UInt(UIntKind::U32);
const U64: ElemType = ElemType::UInt(UIntKind::U64);
const S32: ElemType = ElemType::Int(IntKind::I32);

pub fn elem(dtype: DType) -> ElemType {
    use DType::*;
    match dtype {
        F16 => ElemType::Float(FloatKind::F16),
        Bf16 => ElemType::Float(FloatKind::BF16),
        F32 => ElemType::Float(FloatKind::F32),
        F64 => ElemType::Float(FloatKind::F64),
        S8 => ElemType::Int(IntKind::I8),
        S16 => ElemType::Int(IntKind::I16),
        S32 => ElemType::Int(IntKind::I32),
        S64 => ElemType::Int(IntKind::I64),
        U8 => ElemType::UInt(UIntKind::U8),
        U16 => ElemType::UInt(UIntKind::U16),
        U32 => ElemType::UInt(UIntKind::U32),
        U64 => ElemType::UInt(UIntKind::U64),
    }
}

/// Numbers travel to the device in words: narrow ones as a word of their kind.
fn carrier(dtype: DType) -> DType {
    match (dtype.size(), dtype.kind()) {
        (4.., _) => dtype,
        (_, Kind::Float) => DType::F32,
        (_, Kind::Signed) => DType::S32,
        (_, Kind::Unsigned) => DType::U32,
    }
}

struct Tree<R: Runtime> {
    program: Arc<Program>,
    /// With one more buffer, which is told where the driver stops a loop before its end.
    watched: bool,
    settings: KernelSettings,
    client: ComputeClient<R>,
}

impl<R: Runtime> KernelMetadata for Tree<R> {
    fn name(&self) -> &'static str {
        "ex_cubecl_kernel"
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>()
            .address_type(self.settings.address_type)
            .cube_dim(self.settings.cube_dim)
            .info((self.program.clone(), self.watched))
    }

    fn address_type(&self) -> StorageType {
        self.settings.address_type.unsigned_type()
    }
}

impl<R: Runtime> CubeKernel for Tree<R> {
    fn define(&self) -> KernelDefinition {
        let mut builder = KernelBuilder::default();
        builder.runtime_properties(R::target_properties());
        builder.device_properties(self.client.properties());
        self.settings.address_type.register(&mut builder.scope);
        let program = &self.program;
        let atomics = program.atomics();
        let listed = |(slot, dtype): (usize, &DType)| (list_type(*dtype, &atomics, slot), slot);
        let all = program.inputs.iter().chain(&program.outputs);
        let lists: Vec<Variable> = all
            .enumerate()
            .map(listed)
            .map(|(ty, slot)| match slot < program.inputs.len() {
                true => *builder.input_array(ty),
                false => *builder.output_array(ty),
            })
            .collect();
        let status = self
            .watched
            .then(|| *builder.output_array(IrType::scalar(S32)));
        let word = StorageType::Scalar(U32);
        let positions = *builder.scalar(word);
        let threads = *builder.scalar(word);
        let mut buffers: Vec<Listed> = lists
            .into_iter()
            .map(|list| Listed {
                list,
                offset: Some(*builder.scalar(word)),
                len: *builder.scalar(word),
            })
            .collect();
        let status = status.map(|list| Listed {
            list,
            offset: Some(*builder.scalar(word)),
            len: number(1, U32),
        });
        let carriers = program.scalars.iter().map(|dtype| {
            let ty = elem(carrier(*dtype));
            (*builder.scalar(StorageType::Scalar(ty)), elem(*dtype))
        });
        let carriers: Vec<_> = carriers.collect();
        let scope = &mut builder.scope;
        for (at, (dtype, len)) in program.shared().iter().enumerate() {
            let ty = list_type(*dtype, &atomics, program.buffers() + at);
            buffers.push(Listed {
                list: *scope.create_shared_array(ty, *len as usize, None),
                offset: None,
                len: number(i64::from(*len), U32),
            });
        }
        let scalars = carriers
            .into_iter()
            .map(|(carrier, ty)| cast(scope, carrier, ty))
            .collect();
        let locals = program
            .locals
            .iter()
            .map(|local| *scope.create_local_restricted(ir_type(*local)))
            .collect();
        let mut emitter = Emitter {
            buffers,
            scalars,
            locals,
            own: zero(U32),
            position: zero(S32),
            group: zero(S32),
            member: zero(S32),
            report: program.report,
            status,
        };
        match &program.group {
            Some(group) => emitter.in_groups(scope, program, group.threads, positions),
            None => emitter.one_by_one(scope, program, positions, threads),
        }
        builder.build(self.settings.clone())
    }
}

fn list_type(dtype: DType, atomics: &[usize], slot: usize) -> IrType {
    IrType::new(match atomics.contains(&slot) {
        true => StorageType::Atomic(elem(dtype)),
        false => StorageType::Scalar(elem(dtype)),
    })
}

/// A number that the device has for each thread, as a word.
fn builtin(scope: &mut Scope, builtin: Builtin) -> Variable {
    let ty = match builtin {
        Builtin::UnitPos => StorageType::Scalar(U32),
        _ => usize::as_type(scope).storage_type(),
    };
    cast(scope, Variable::builtin(builtin, ty), U32)
}

fn ir_type(ty: Type) -> IrType {
    match ty {
        Type::Bool => IrType::scalar(ElemType::Bool),
        Type::Of(dtype) => IrType::scalar(elem(dtype)),
    }
}

fn put(scope: &mut Scope, op: impl Into<Operation>, ty: ElemType) -> Variable {
    let out = *scope.create_local(IrType::scalar(ty));
    scope.register(Instruction::new(op, out));
    out
}

fn cast(scope: &mut Scope, input: Variable, ty: ElemType) -> Variable {
    match input.ty == IrType::scalar(ty) {
        true => input,
        false => put(scope, Operator::Cast(UnaryOperator { input }), ty),
    }
}

fn constant(value: ConstantValue, ty: ElemType) -> Variable {
    Variable::constant(value, IrType::scalar(ty))
}

fn of_bits(dtype: DType, bits: u64) -> Variable {
    let value = match dtype.kind() {
        Kind::Unsigned => ConstantValue::UInt(bits),
        Kind::Signed => {
            let unused = 64 - 8 * dtype.size() as u32;
            ConstantValue::Int(((bits << unused) as i64) >> unused)
        }
        Kind::Float => {
            let wide = numeric::convert_bits(dtype.into(), DType::F64.into(), bits);
            ConstantValue::Float(f64::from_bits(wide))
        }
    };
    constant(value, elem(dtype))
}

/// A buffer inside of the kernel: the elements of a window, and which of them it is.
struct Listed {
    list: Variable,
    offset: Option<Variable>,
    len: Variable,
}

struct Emitter {
    buffers: Vec<Listed>,
    scalars: Vec<Variable>,
    locals: Vec<Variable>,
    /// The position of the thread, unsigned as indices are, and signed as the language has it.
    own: Variable,
    position: Variable,
    /// In a kernel of groups.
    group: Variable,
    member: Variable,
    report: Option<usize>,
    status: Option<Listed>,
}

impl Emitter {
    fn one_by_one(
        &mut self,
        scope: &mut Scope,
        program: &Program,
        positions: Variable,
        threads: Variable,
    ) {
        let first = builtin(scope, Builtin::AbsolutePos);
        self.own = *scope.create_local_restricted(IrType::scalar(U32));
        let mut body = scope.child();
        let last = self.watch(scope, first, &mut body, self.own);
        self.position = cast(&mut body, self.own, S32);
        self.block(&mut body, &program.body);
        scope.register(Branch::RangeLoop(Box::new(RangeLoop {
            i: self.own,
            start: first,
            end: positions,
            step: Some(threads),
            inclusive: false,
            scope: body,
        })));
        if let Some(last) = last {
            let (lhs, rhs) = (last, threads);
            let next = put(scope, Arithmetic::Add(BinaryOperator { lhs, rhs }), U32);
            self.tell_stopped(scope, next, positions);
        }
    }

    /// All threads of a group do the same here, so that they meet at each barrier. A group too many
    /// does nothing.
    fn in_groups(&mut self, scope: &mut Scope, program: &Program, threads: u32, groups: Variable) {
        let group = builtin(scope, Builtin::CubePos);
        let member = builtin(scope, Builtin::UnitPos);
        let (lhs, rhs) = (group, groups);
        let wanted = Comparison::Lower(BinaryOperator { lhs, rhs });
        let cond = put(scope, wanted, ElemType::Bool);
        let mut body = scope.child();
        let shared = program.buffers()..self.buffers.len();
        for slot in shared.clone() {
            self.clear(&mut body, slot, member, threads);
        }
        if !shared.is_empty() {
            body.register(Synchronization::SyncCube);
        }
        self.group = cast(&mut body, group, S32);
        self.member = cast(&mut body, member, S32);
        if self.report.is_some() {
            let first = multiply(&mut body, self.group, number(i64::from(threads), S32));
            let (lhs, rhs) = (first, self.member);
            self.position = put(&mut body, Arithmetic::Add(BinaryOperator { lhs, rhs }), S32);
        }
        self.block(&mut body, &program.body);
        scope.register(Branch::If(Box::new(If { cond, scope: body })));
    }

    /// What a group shares may hold what another one left there.
    fn clear(&self, scope: &mut Scope, slot: usize, member: Variable, threads: u32) {
        let i = *scope.create_local_restricted(IrType::scalar(U32));
        let mut body = scope.child();
        let ty = self.buffers[slot].list.ty.elem_type();
        self.store(&mut body, slot, i, zero(ty));
        scope.register(Branch::RangeLoop(Box::new(RangeLoop {
            i,
            start: member,
            end: self.buffers[slot].len,
            step: Some(number(i64::from(threads), U32)),
            inclusive: false,
            scope: body,
        })));
    }

    fn block(&self, scope: &mut Scope, block: &[Stmt]) {
        for statement in block {
            self.statement(scope, statement);
        }
    }

    fn statement(&self, scope: &mut Scope, statement: &Stmt) {
        match statement {
            Stmt::Set(local, value) => {
                let value = self.expr(scope, value);
                let local = self.locals[*local];
                scope.register(Instruction::new(Operation::Copy(value), local));
            }
            Stmt::Put(slot, value) => {
                let value = self.expr(scope, value);
                self.store(scope, *slot, self.own, value);
            }
            Stmt::Write(slot, index, value) => {
                let index = self.expr(scope, index);
                let value = self.expr(scope, value);
                let (index, cond) = self.inside(scope, *slot, index);
                let mut then = scope.child();
                self.store(&mut then, *slot, index, value);
                self.guarded(scope, cond, then, *slot, index);
            }
            Stmt::If(condition, then, other) => {
                let cond = self.expr(scope, condition);
                let mut scope_if = scope.child();
                self.block(&mut scope_if, then);
                let mut scope_else = scope.child();
                self.block(&mut scope_else, other);
                let branch = match other.is_empty() {
                    true => Branch::If(Box::new(If {
                        cond,
                        scope: scope_if,
                    })),
                    false => Branch::IfElse(Box::new(IfElse {
                        cond,
                        scope_if,
                        scope_else,
                    })),
                };
                scope.register(branch);
            }
            Stmt::For(local, from, to, body) => self.run(scope, *local, (from, to), body),
            Stmt::Atomic(op, slot, index, value, before) => {
                let index = self.expr(scope, index);
                let value = self.expr(scope, value);
                let (index, cond) = self.inside(scope, *slot, index);
                let before = before.map(|local| self.locals[local]);
                if let Some(local) = before {
                    let none = Operation::Copy(zero(local.ty.elem_type()));
                    scope.register(Instruction::new(none, local));
                }
                let mut then = scope.child();
                let was = self.change(&mut then, *op, *slot, (index, value));
                if let Some(local) = before {
                    then.register(Instruction::new(Operation::Copy(was), local));
                }
                self.guarded(scope, cond, then, *slot, index);
            }
            Stmt::Barrier => scope.register(Synchronization::SyncCube),
        }
    }

    /// The counter of the loop is its own: what the body does to the local ends with the round.
    fn run(&self, scope: &mut Scope, local: usize, (from, to): (&Expr, &Expr), body: &[Stmt]) {
        let (start, end) = (self.expr(scope, from), self.expr(scope, to));
        let counter = *scope.create_local_restricted(IrType::scalar(S32));
        let mut round = scope.child();
        let last = self.watch(scope, start, &mut round, counter);
        let copy = Instruction::new(Operation::Copy(counter), self.locals[local]);
        round.register(copy);
        self.block(&mut round, body);
        scope.register(Branch::RangeLoop(Box::new(RangeLoop {
            i: counter,
            start,
            end,
            step: None,
            inclusive: true,
            scope: round,
        })));
        if let Some(last) = last {
            self.tell_stopped(scope, last, end);
        }
    }

    /// Keeps how far a loop came, if anybody wants to know.
    fn watch(
        &self,
        scope: &mut Scope,
        start: Variable,
        round: &mut Scope,
        counter: Variable,
    ) -> Option<Variable> {
        self.status.as_ref()?;
        let last = *scope.create_local_restricted(counter.ty);
        scope.register(Instruction::new(Operation::Copy(start), last));
        round.register(Instruction::new(Operation::Copy(counter), last));
        Some(last)
    }

    /// Where a loop came to `last` and there is more to do below `end`.
    fn tell_stopped(&self, scope: &mut Scope, last: Variable, end: Variable) {
        if let Some(status) = &self.status {
            let (lhs, rhs) = (last, end);
            let early = Comparison::Lower(BinaryOperator { lhs, rhs });
            let cond = put(scope, early, ElemType::Bool);
            let mut tell = scope.child();
            store_in(&mut tell, status, zero(U32), number(1, S32));
            scope.register(Branch::If(Box::new(If { cond, scope: tell })));
        }
    }

    fn store(&self, scope: &mut Scope, slot: usize, index: Variable, value: Variable) {
        let buffer = &self.buffers[slot];
        if buffer.list.ty.is_atomic() {
            let place = self.element(scope, slot, index);
            let op = AtomicOp::Store(UnaryOperator { input: value });
            scope.register(Instruction::new(op, place));
            return;
        }
        store_in(scope, buffer, index, value);
    }

    fn load(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        let element = self.element(scope, slot, index);
        match element.ty.is_atomic() {
            true => {
                let ty = element.ty.elem_type();
                put(scope, AtomicOp::Load(UnaryOperator { input: element }), ty)
            }
            false => element,
        }
    }

    /// The element, or the place of it where it can be changed in one piece.
    fn element(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        let buffer = &self.buffers[slot];
        let op = Operator::UncheckedIndex(IndexOperator {
            list: buffer.list,
            index: at(scope, buffer, index),
            vector_size: 0,
            unroll_factor: 1,
        });
        let out = *scope.create_local(buffer.list.ty);
        scope.register(Instruction::new(op, out));
        out
    }

    /// What was there before.
    fn change(
        &self,
        scope: &mut Scope,
        op: Atomic,
        slot: usize,
        (index, rhs): (Variable, Variable),
    ) -> Variable {
        let lhs = self.element(scope, slot, index);
        let o = BinaryOperator { lhs, rhs };
        let op = match op {
            Atomic::Add => AtomicOp::Add(o),
            Atomic::Min => AtomicOp::Min(o),
            Atomic::Max => AtomicOp::Max(o),
            Atomic::And => AtomicOp::And(o),
            Atomic::Or => AtomicOp::Or(o),
            Atomic::Xor => AtomicOp::Xor(o),
            Atomic::Exchange => AtomicOp::Swap(o),
        };
        put(scope, op, lhs.ty.elem_type())
    }

    /// The index as an unsigned word, and whether it is one of the buffer. A negative one is far out.
    fn inside(&self, scope: &mut Scope, slot: usize, index: Variable) -> (Variable, Variable) {
        let len = self.buffers[slot].len;
        let wide = index.ty.elem_type().size() == 8;
        let (lhs, rhs) = match wide {
            true => (cast(scope, index, U64), cast(scope, len, U64)),
            false => {
                let signed = matches!(index.ty.elem_type(), ElemType::Int(_));
                let word = if signed {
                    cast(scope, index, S32)
                } else {
                    index
                };
                (cast(scope, word, U32), len)
            }
        };
        let lower = Comparison::Lower(BinaryOperator { lhs, rhs });
        let inside = put(scope, lower, ElemType::Bool);
        (cast(scope, lhs, U32), inside)
    }

    fn read(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        let (index, cond) = self.inside(scope, slot, index);
        let ty = self.buffers[slot].list.ty.elem_type();
        let out = *scope.create_local_restricted(IrType::scalar(ty));
        let zero = zero(ty);
        scope.register(Instruction::new(Operation::Copy(zero), out));
        let mut then = scope.child();
        let value = self.load(&mut then, slot, index);
        then.register(Instruction::new(Operation::Copy(value), out));
        self.guarded(scope, cond, then, slot, index);
        out
    }

    /// What uses an index, if it is inside; where it is not and somebody wants to know, that is told.
    fn guarded(
        &self,
        scope: &mut Scope,
        cond: Variable,
        inside: Scope,
        slot: usize,
        index: Variable,
    ) {
        let Some(report) = self.report else {
            scope.register(Branch::If(Box::new(If {
                cond,
                scope: inside,
            })));
            return;
        };
        let mut outside = scope.child();
        let index = cast(&mut outside, index, S32);
        let told = [
            number(1, S32),
            number(slot as i64, S32),
            index,
            self.position,
        ];
        for (at, value) in told.into_iter().enumerate() {
            self.store(&mut outside, report, number(at as i64, U32), value);
        }
        scope.register(Branch::IfElse(Box::new(IfElse {
            cond,
            scope_if: inside,
            scope_else: outside,
        })));
    }

    fn expr(&self, scope: &mut Scope, expr: &Expr) -> Variable {
        match expr {
            Expr::Const(dtype, bits) => of_bits(*dtype, *bits),
            Expr::Bool(value) => constant(ConstantValue::Bool(*value), ElemType::Bool),
            Expr::Scalar(slot) => self.scalars[*slot],
            // What a variable holds now, whatever it is set to later.
            Expr::Local(local) => {
                let local = self.locals[*local];
                let out = *scope.create_local(local.ty);
                scope.register(Instruction::new(Operation::Copy(local), out));
                out
            }
            Expr::Position => self.position,
            Expr::Group => self.group,
            Expr::Member => self.member,
            Expr::Len(slot) => cast(scope, self.buffers[*slot].len, S32),
            Expr::Own(slot) => self.load(scope, *slot, self.own),
            Expr::Read(slot, index) => {
                let index = self.expr(scope, index);
                self.read(scope, *slot, index)
            }
            Expr::Cast(dtype, value) => {
                let value = self.expr(scope, value);
                cast_value(scope, value, *dtype)
            }
            Expr::Select(condition, then, other) => {
                let cond = self.expr(scope, condition);
                let (then, or_else) = (self.expr(scope, then), self.expr(scope, other));
                select(scope, cond, then, or_else)
            }
            Expr::Unary(op, value) => {
                let input = self.expr(scope, value);
                unary(scope, *op, input)
            }
            Expr::Binary(op, left, right) => {
                let (lhs, rhs) = (self.expr(scope, left), self.expr(scope, right));
                binary(scope, *op, lhs, rhs)
            }
        }
    }
}

fn store_in(scope: &mut Scope, buffer: &Listed, index: Variable, value: Variable) {
    let index = at(scope, buffer, index);
    let op = Operator::UncheckedIndexAssign(IndexAssignOperator {
        index,
        value,
        vector_size: 0,
        unroll_factor: 1,
    });
    scope.register(Instruction::new(op, buffer.list));
}

fn at(scope: &mut Scope, buffer: &Listed, index: Variable) -> Variable {
    match buffer.offset {
        Some(rhs) => {
            let lhs = index;
            put(scope, Arithmetic::Add(BinaryOperator { lhs, rhs }), U32)
        }
        None => index,
    }
}

fn multiply(scope: &mut Scope, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    put(scope, Arithmetic::Mul(BinaryOperator { lhs, rhs }), ty)
}

fn zero(ty: ElemType) -> Variable {
    number(0, ty)
}

fn number(value: i64, ty: ElemType) -> Variable {
    let value = match ty {
        ElemType::Float(_) => ConstantValue::Float(value as f64),
        ElemType::UInt(_) => ConstantValue::UInt(value as u64),
        _ => ConstantValue::Int(value),
    };
    constant(value, ty)
}

fn select(scope: &mut Scope, cond: Variable, then: Variable, or_else: Variable) -> Variable {
    let ty = then.ty.elem_type();
    let op = Select {
        cond,
        then,
        or_else,
    };
    put(scope, Operator::Select(op), ty)
}

/// Floats are held within the range of an integer type, and NaN is 0: past it, each device would do
/// as it likes.
fn cast_value(scope: &mut Scope, value: Variable, to: DType) -> Variable {
    let ty = elem(to);
    let from = value.ty.elem_type();
    match (from, to.kind()) {
        (ElemType::Bool, _) => select(scope, value, number(1, ty), zero(ty)),
        (ElemType::Float(_), Kind::Signed | Kind::Unsigned) => {
            let (low, high) = bounds(from, to);
            let (low, high) = (
                constant(ConstantValue::Float(low), from),
                constant(ConstantValue::Float(high), from),
            );
            let nan = put(
                scope,
                Comparison::IsNan(UnaryOperator { input: value }),
                ElemType::Bool,
            );
            let known = select(scope, nan, zero(from), value);
            let least = Arithmetic::Max(BinaryOperator {
                lhs: known,
                rhs: low,
            });
            let least = put(scope, least, from);
            let most = Arithmetic::Min(BinaryOperator {
                lhs: least,
                rhs: high,
            });
            let held = put(scope, most, from);
            cast(scope, held, ty)
        }
        _ => cast(scope, value, ty),
    }
}

/// The least and the greatest float that an integer type holds.
fn bounds(from: ElemType, to: DType) -> (f64, f64) {
    let bits = 8 * to.size() as i32;
    let (low, past) = match to.kind() {
        Kind::Signed => (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1)),
        _ => (0.0, 2f64.powi(bits)),
    };
    let (digits, most) = match from {
        ElemType::Float(FloatKind::F16) => (11, 65504.0),
        ElemType::Float(FloatKind::BF16) => (8, f64::MAX),
        ElemType::Float(FloatKind::F64) => (53, f64::MAX),
        _ => (24, f64::MAX),
    };
    // One less where the type can tell, else the next float below.
    let step = (past.log2() as i32 - digits).max(0);
    (low.max(-most), (past - 2f64.powi(step)).min(most))
}

fn unary(scope: &mut Scope, op: Unary, input: Variable) -> Variable {
    let ty = input.ty.elem_type();
    let o = UnaryOperator { input };
    match op {
        Unary::Neg => put(scope, Arithmetic::Neg(o), ty),
        Unary::Not => put(scope, Operator::Not(o), ty),
        Unary::BitNot => put(scope, Bitwise::BitwiseNot(o), ty),
        Unary::Abs => put(scope, Arithmetic::Abs(o), ty),
        Unary::Exp => put(scope, Arithmetic::Exp(o), ty),
        Unary::Log => put(scope, Arithmetic::Log(o), ty),
        Unary::Log1p => put(scope, Arithmetic::Log1p(o), ty),
        Unary::Sin => put(scope, Arithmetic::Sin(o), ty),
        Unary::Cos => put(scope, Arithmetic::Cos(o), ty),
        Unary::Tan => put(scope, Arithmetic::Tan(o), ty),
        Unary::Tanh => put(scope, Arithmetic::Tanh(o), ty),
        Unary::Sinh => put(scope, Arithmetic::Sinh(o), ty),
        Unary::Cosh => put(scope, Arithmetic::Cosh(o), ty),
        Unary::Asin => put(scope, Arithmetic::ArcSin(o), ty),
        Unary::Acos => put(scope, Arithmetic::ArcCos(o), ty),
        Unary::Atan => put(scope, Arithmetic::ArcTan(o), ty),
        Unary::Sqrt => put(scope, Arithmetic::Sqrt(o), ty),
        Unary::Rsqrt => put(scope, Arithmetic::InverseSqrt(o), ty),
        Unary::Round => put(scope, Arithmetic::Round(o), ty),
        Unary::Floor => put(scope, Arithmetic::Floor(o), ty),
        Unary::Ceil => put(scope, Arithmetic::Ceil(o), ty),
        Unary::Trunc => put(scope, Arithmetic::Trunc(o), ty),
        Unary::Erf => put(scope, Arithmetic::Erf(o), ty),
        Unary::IsNan => put(scope, Comparison::IsNan(o), ElemType::Bool),
        Unary::IsInf => put(scope, Comparison::IsInf(o), ElemType::Bool),
        Unary::CountOnes => {
            let ones = put(scope, Bitwise::CountOnes(o), U32);
            cast(scope, ones, ty)
        }
    }
}

fn binary(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Add => put(scope, Arithmetic::Add(o), ty),
        Binary::Sub => put(scope, Arithmetic::Sub(o), ty),
        Binary::Mul => put(scope, Arithmetic::Mul(o), ty),
        Binary::Div | Binary::Rem if !matches!(ty, ElemType::Float(_)) => {
            divide(scope, op, lhs, rhs)
        }
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        Binary::Rem => put(scope, Arithmetic::Modulo(o), ty),
        Binary::Pow => put(scope, Arithmetic::Powf(o), ty),
        Binary::Atan2 => put(scope, Arithmetic::ArcTan2(o), ty),
        Binary::Min => put(scope, Arithmetic::Min(o), ty),
        Binary::Max => put(scope, Arithmetic::Max(o), ty),
        Binary::And => put(scope, Operator::And(o), ty),
        Binary::Or => put(scope, Operator::Or(o), ty),
        Binary::BitAnd => put(scope, Bitwise::BitwiseAnd(o), ty),
        Binary::BitOr => put(scope, Bitwise::BitwiseOr(o), ty),
        Binary::BitXor => put(scope, Bitwise::BitwiseXor(o), ty),
        Binary::Shl | Binary::Shr => shift(scope, op, lhs, rhs),
        Binary::Eq => put(scope, Comparison::Equal(o), ElemType::Bool),
        Binary::Ne => put(scope, Comparison::NotEqual(o), ElemType::Bool),
        Binary::Lt => put(scope, Comparison::Lower(o), ElemType::Bool),
        Binary::Le => put(scope, Comparison::LowerEqual(o), ElemType::Bool),
        Binary::Gt => put(scope, Comparison::Greater(o), ElemType::Bool),
        Binary::Ge => put(scope, Comparison::GreaterEqual(o), ElemType::Bool),
    }
}

/// By zero that is 0, and the least number by -1 wraps around: left to the device, either may be
/// anything.
fn divide(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let equal = |scope: &mut Scope, value: i64| {
        let rhs_is = BinaryOperator {
            lhs: rhs,
            rhs: number(value, ty),
        };
        put(scope, Comparison::Equal(rhs_is), ElemType::Bool)
    };
    let by_zero = equal(scope, 0);
    let mut odd = by_zero;
    let signed = matches!(ty, ElemType::Int(_));
    let mut other = zero(ty);
    if signed {
        let by_minus_one = equal(scope, -1);
        odd = put(
            scope,
            Operator::Or(BinaryOperator {
                lhs: by_zero,
                rhs: by_minus_one,
            }),
            ElemType::Bool,
        );
        if op == Binary::Div {
            let negative = Arithmetic::Sub(BinaryOperator {
                lhs: zero(ty),
                rhs: lhs,
            });
            let negative = put(scope, negative, ty);
            other = select(scope, by_zero, zero(ty), negative);
        }
    }
    let safe = select(scope, odd, number(1, ty), rhs);
    let o = BinaryOperator { lhs, rhs: safe };
    let result = match op {
        Binary::Div => put(scope, Arithmetic::Div(o), ty),
        _ => put(scope, Arithmetic::Modulo(o), ty),
    };
    select(scope, odd, other, result)
}

/// Only the bits of the distance count that a type has bits for, as on every CPU.
fn shift(scope: &mut Scope, op: Binary, lhs: Variable, rhs: Variable) -> Variable {
    let ty = lhs.ty.elem_type();
    let mask = number(8 * ty.size() as i64 - 1, ty);
    let distance = Bitwise::BitwiseAnd(BinaryOperator {
        lhs: rhs,
        rhs: mask,
    });
    let rhs = put(scope, distance, ty);
    let o = BinaryOperator { lhs, rhs };
    match op {
        Binary::Shl => put(scope, Bitwise::ShiftLeft(o), ty),
        _ => put(scope, Bitwise::ShiftRight(o), ty),
    }
}

/// So many groups, or a few more: every device takes 65,535 along each axis.
fn in_rows(groups: u32) -> (u32, u32) {
    let rows = groups.div_ceil(MOST_CUBES).max(1);
    (groups.div_ceil(rows).max(1), rows)
}

/// What a device has for the threads of a group.
pub fn check_group<R: Runtime>(client: &ComputeClient<R>, group: &Group) -> Result<(), String> {
    let hardware = &client.properties().hardware;
    let most = hardware.max_units_per_cube.min(hardware.max_cube_dim.0);
    if group.threads > most {
        return Err(format!(
            "a group of {} threads: at most {most} run together on this device",
            group.threads
        ));
    }
    let bytes = group.shared.iter();
    let bytes: u64 = bytes
        .map(|(dtype, len)| (dtype.size() * u64::from(*len)).next_multiple_of(16))
        .sum();
    let room = hardware.max_shared_memory_size as u64;
    match bytes > room {
        true => Err(format!(
            "{bytes} bytes of shared memory: a group has {room} on this device"
        )),
        false => Ok(()),
    }
}

/// Whether the device can change elements of this type in one piece.
pub fn changes<R: Runtime>(client: &ComputeClient<R>, op: Atomic, dtype: DType) -> bool {
    let ty = IrType::new(StorageType::Atomic(elem(dtype)));
    let can = client.properties().atomic_type_usage(ty);
    let wanted = match op {
        Atomic::Add => AtomicUsage::Add,
        Atomic::Min | Atomic::Max => AtomicUsage::MinMax,
        Atomic::And | Atomic::Or | Atomic::Xor | Atomic::Exchange => AtomicUsage::LoadStore,
    };
    can.contains(wanted) && can.contains(AtomicUsage::LoadStore)
}

/// A buffer of a launch: the window that is bound, and how many elements there are.
pub struct Bound {
    pub window: Window,
    pub dtype: DType,
    pub count: u64,
}

/// Threads of a launch without groups.
pub fn threads(positions: u32) -> u32 {
    positions.div_ceil(THREADS).clamp(1, MAX_CUBES) * THREADS
}

/// A program over `positions` positions. Each number is the bits of its element.
pub struct Launch {
    pub program: Arc<Program>,
    pub buffers: Vec<Bound>,
    pub scalars: Vec<u64>,
    pub positions: u32,
    /// A word that becomes 1 where the driver stops a loop before its end.
    pub status: Option<Window>,
}

impl Launch {
    pub fn queue<R: Runtime>(&self, client: &ComputeClient<R>) {
        let program = &self.program;
        let group = program.group.as_ref();
        let cube = group.map_or(THREADS, |group| group.threads);
        let threads = threads(self.positions);
        let cubes = match group {
            Some(_) => in_rows(self.positions),
            None => (threads / THREADS, 1),
        };
        let settings = KernelSettings::default()
            .cube_dim(CubeDim::new_1d(cube))
            .address_type(AddressType::U32)
            .kernel_name("ex_cubecl_kernel");
        let mut launcher = KernelLauncher::<R>::new(settings.clone());
        let atomics = program.atomics();
        for (slot, buffer) in self.buffers.iter().enumerate() {
            let ty = list_type(buffer.dtype, &atomics, slot);
            bind(&mut launcher, &buffer.window, buffer.dtype, ty);
        }
        if let Some(window) = &self.status {
            bind(&mut launcher, window, DType::S32, IrType::scalar(S32));
        }
        word(&mut launcher, self.positions);
        word(&mut launcher, threads);
        for buffer in &self.buffers {
            let first = buffer.window.offset / buffer.dtype.size();
            word(&mut launcher, first as u32);
            word(&mut launcher, buffer.count as u32);
        }
        if let Some(window) = &self.status {
            word(&mut launcher, (window.offset / 4) as u32);
        }
        for (dtype, bits) in program.scalars.iter().zip(&self.scalars) {
            let carrier = carrier(*dtype);
            let bits = numeric::convert_bits((*dtype).into(), carrier.into(), *bits);
            let bytes = &bits.to_le_bytes()[..carrier.size() as usize];
            launcher.register_scalar_raw(bytes, StorageType::Scalar(elem(carrier)));
        }
        let tree = Tree::<R> {
            program: program.clone(),
            watched: self.status.is_some(),
            settings,
            client: client.clone(),
        };
        launcher.launch(CubeCount::Static(cubes.0, cubes.1, 1), tree, client);
    }
}

fn bind<R: Runtime>(launcher: &mut KernelLauncher<R>, window: &Window, dtype: DType, ty: IrType) {
    let elements = (window.words * 4 / dtype.size()) as usize;
    // SAFETY: the window was cut from a page that has these words; the kernel compares each index
    // with the buffer's count, which ends inside of the window.
    let argument = unsafe { ArrayArg::from_raw_parts(window.handle.clone(), elements) };
    launcher.register_array(argument, ty);
}

fn word<R: Runtime>(launcher: &mut KernelLauncher<R>, value: u32) {
    launcher.register_scalar_raw(&value.to_ne_bytes(), StorageType::Scalar(U32));
}
