//! The statements of a program.

use cubecl::ir::{
    Arithmetic, AtomicOp, BinaryOperator, Branch, Builtin, Comparison, ElemType, If, IfElse,
    Instruction, Operation, RangeLoop, Scope, Synchronization, Variable,
};

use crate::lower::expressions::{Lowering, at, store_in};
use crate::lower::types::{IrType, S32, U32};
use crate::lower::values::{builtin, cast, multiply, number, put, zero};
use ex_cubecl_core::program::tree::{Atomic, Expr, Program, Stmt, While};

impl Lowering {
    pub fn one_by_one(&mut self, scope: &mut Scope, program: &Program, invocations: Variable) {
        self.index = builtin(scope, Builtin::AbsolutePos);
        let (lhs, rhs) = (self.index, invocations);
        let wanted = Comparison::Lower(BinaryOperator { lhs, rhs });
        let cond = put(scope, wanted, ElemType::Bool);
        let mut body = scope.child();
        self.global_id = cast(&mut body, self.index, S32);
        for slot in program.element_at_self() {
            self.own[slot] = Some(at(&mut body, &self.buffers[slot], self.index));
        }
        self.block(&mut body, &program.body);
        scope.register(Branch::If(Box::new(If { cond, scope: body })));
    }

    /// All threads of a group take the same path here, so that they all reach each barrier. A group
    /// beyond the requested number does nothing.
    pub fn in_groups(
        &mut self,
        scope: &mut Scope,
        program: &Program,
        threads: u32,
        groups: Variable,
    ) {
        let group = builtin(scope, Builtin::CubePos);
        let unit = builtin(scope, Builtin::UnitPos);
        let (lhs, rhs) = (group, groups);
        let wanted = Comparison::Lower(BinaryOperator { lhs, rhs });
        let cond = put(scope, wanted, ElemType::Bool);
        let mut body = scope.child();
        let shared = program.buffers()..self.buffers.len();
        for slot in shared.clone() {
            self.clear(&mut body, slot, unit, threads);
        }
        if !shared.is_empty() {
            body.register(Synchronization::SyncCube);
        }
        self.group_id = cast(&mut body, group, S32);
        self.local_id = cast(&mut body, unit, S32);
        if self.report.is_some() {
            let first = multiply(&mut body, self.group_id, number(i64::from(threads), S32));
            let (lhs, rhs) = (first, self.local_id);
            self.global_id = put(&mut body, Arithmetic::Add(BinaryOperator { lhs, rhs }), S32);
        }
        self.block(&mut body, &program.body);
        scope.register(Branch::If(Box::new(If { cond, scope: body })));
    }

    /// Zeroes shared memory, which may hold values that another group left there.
    fn clear(&self, scope: &mut Scope, slot: usize, unit: Variable, threads: u32) {
        let i = *scope.create_local_restricted(IrType::scalar(U32));
        let mut body = scope.child();
        let ty = self.buffers[slot].list.ty.elem_type();
        self.store(&mut body, slot, i, zero(ty));
        scope.register(Branch::RangeLoop(Box::new(RangeLoop {
            i,
            start: unit,
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
                let value = self.set_value(scope, value);
                self.locals.set(scope, *local, value);
            }
            Stmt::Put(slot, value) => {
                let value = self.expr(scope, value);
                let place = self.own_place(scope, *slot);
                self.store_at(scope, *slot, place, value);
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
                let branch = if other.is_empty() {
                    Branch::If(Box::new(If {
                        cond,
                        scope: scope_if,
                    }))
                } else {
                    Branch::IfElse(Box::new(IfElse {
                        cond,
                        scope_if,
                        scope_else,
                    }))
                };
                scope.register(branch);
            }
            Stmt::For(local, from, to, body) => self.run(scope, *local, (from, to), body),
            Stmt::While(round) => self.run_while(scope, round),
            Stmt::Atomic(op, slot, index, value, before) => {
                let index = self.expr(scope, index);
                let value = self.expr(scope, value);
                let (index, cond) = self.inside(scope, *slot, index);
                if let Some(local) = *before {
                    self.locals.clear(scope, local);
                }
                let mut then = scope.child();
                let was = self.change(&mut then, *op, *slot, (index, value));
                if let Some(local) = *before {
                    self.locals.set(&mut then, local, was);
                }
                self.guarded(scope, cond, then, *slot, index);
            }
            Stmt::LoadVector(slot, index, locals) => self.load_vector(scope, *slot, index, locals),
            Stmt::StoreVector(slot, index, values) => {
                self.store_vector(scope, *slot, index, &values[..]);
            }
            Stmt::Barrier => scope.register(Synchronization::SyncCube),
        }
    }

    /// The loop has a counter of its own: what the body assigns to the local lasts until the end of
    /// the iteration.
    fn run(&self, scope: &mut Scope, local: usize, (from, to): (&Expr, &Expr), body: &[Stmt]) {
        let (start, end) = (self.expr(scope, from), self.expr(scope, to));
        let counter = *scope.create_local_restricted(IrType::scalar(S32));
        let mut round = scope.child();
        let last = self.watch(scope, start, &mut round, counter);
        self.locals.set(&mut round, local, counter);
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

    /// A counter from 1 to an end, which is the limit, and 0 once the condition was false: CubeCL's SPIR-V compiler panics at some
    /// loops with a break.
    fn run_while(&self, scope: &mut Scope, round: &While) {
        let (start, limit) = (number(1, S32), self.expr(scope, &round.limit));
        let counter = *scope.create_local_restricted(IrType::scalar(S32));
        let end = *scope.create_local_restricted(IrType::scalar(S32));
        scope.register(Instruction::new(Operation::Copy(limit), end));
        let mut inner = scope.child();
        let last = self.watch(scope, start, &mut inner, counter);
        self.block(&mut inner, &round.head);
        let cond = self.expr(&mut inner, &round.condition);
        let mut scope_if = inner.child();
        self.block(&mut scope_if, &round.body);
        let mut scope_else = inner.child();
        scope_else.register(Instruction::new(Operation::Copy(zero(S32)), end));
        if let Some(last) = last {
            scope_else.register(Instruction::new(Operation::Copy(limit), last));
        }
        inner.register(Branch::IfElse(Box::new(IfElse {
            cond,
            scope_if,
            scope_else,
        })));
        scope.register(Branch::RangeLoop(Box::new(RangeLoop {
            i: counter,
            start,
            end,
            step: None,
            inclusive: true,
            scope: inner,
        })));
        if let Some(last) = last {
            self.tell_stopped(scope, last, limit);
        }
    }

    /// Records the last value of a loop's counter, if the kernel has a status buffer.
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

    /// Sets the status word if a loop stopped at `last`, below `end`.
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

    /// Applies an atomic operation and returns the previous value.
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
}
