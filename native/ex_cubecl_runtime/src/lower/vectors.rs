//! Loads and stores of vectors. The variant of the launch (`launch/variant.rs` of core) guarantees that the buffers are aligned, and
//! that the last vector of each is in its memory.

use cubecl::ir::{
    Arithmetic, BinaryOperator, Bitwise, Branch, Comparison, ElemType, If, IndexAssignOperator,
    IndexOperator, Instruction, Operator, Scope, Variable, VectorInitOperator,
};
use ex_cubecl_core::program::tree::Expr;
use ex_cubecl_core::program::tree::LANES;

use crate::lower::expressions::Lowering;
use crate::lower::types::U32;
use crate::lower::values::{cast, number, put, select, zero};

/// The binary logarithm of the number of lanes.
const SHIFT: i64 = LANES.ilog2() as i64;

impl Lowering {
    /// The index, as an unsigned word, and whether the buffer has an element of this vector.
    fn vector(&self, scope: &mut Scope, slot: usize, index: &Expr) -> (Variable, Variable) {
        let index = self.expr(scope, index);
        let lhs = cast(scope, index, U32);
        let last = Arithmetic::Add(BinaryOperator {
            lhs: self.buffers[slot].len,
            rhs: number(LANES as i64 - 1, U32),
        });
        let last = put(scope, last, U32);
        let rhs = vectors_of(scope, last);
        let lower = Comparison::Lower(BinaryOperator { lhs, rhs });
        (lhs, put(scope, lower, ElemType::Bool))
    }

    /// The index in the bound window.
    fn vector_at(&self, scope: &mut Scope, slot: usize, index: Variable) -> Variable {
        match self.buffers[slot].offset {
            Some(offset) => {
                let (lhs, rhs) = (index, vectors_of(scope, offset));
                put(scope, Arithmetic::Add(BinaryOperator { lhs, rhs }), U32)
            }
            None => index,
        }
    }

    pub(super) fn load_vector(
        &self,
        scope: &mut Scope,
        slot: usize,
        index: &Expr,
        locals: &[usize],
    ) {
        let (index, inside) = self.vector(scope, slot, index);
        let index = select(scope, inside, index, zero(U32));
        let list = self.buffers[slot].list;
        let vector = *scope.create_local(list.ty);
        let load = element(list, self.vector_at(scope, slot, index));
        scope.register(Instruction::new(load, vector));
        for (lane, local) in locals.iter().enumerate() {
            let ty = list.ty.elem_type();
            let value = put(scope, element(vector, number(lane as i64, U32)), ty);
            self.locals.set(scope, *local, value);
        }
    }

    pub(super) fn store_vector(
        &self,
        scope: &mut Scope,
        slot: usize,
        index: &Expr,
        values: &[Expr],
    ) {
        let (index, cond) = self.vector(scope, slot, index);
        let inputs = values.iter().map(|value| self.expr(scope, value)).collect();
        let list = self.buffers[slot].list;
        let mut then = scope.child();
        let value = *then.create_local(list.ty);
        let all = Operator::InitVector(VectorInitOperator { inputs });
        then.register(Instruction::new(all, value));
        let index = self.vector_at(&mut then, slot, index);
        let store = Operator::UncheckedIndexAssign(IndexAssignOperator {
            index,
            value,
            vector_size: 0,
            unroll_factor: 1,
        });
        then.register(Instruction::new(store, list));
        scope.register(Branch::If(Box::new(If { cond, scope: then })));
    }
}

/// A number of elements as a number of vectors.
fn vectors_of(scope: &mut Scope, elements: Variable) -> Variable {
    let (lhs, rhs) = (elements, number(SHIFT, U32));
    put(scope, Bitwise::ShiftRight(BinaryOperator { lhs, rhs }), U32)
}

fn element(list: Variable, index: Variable) -> Operator {
    Operator::UncheckedIndex(IndexOperator {
        list,
        index,
        vector_size: 0,
        unroll_factor: 1,
    })
}
