//! The locals of a program. CubeCL's optimizer goes through the whole kernel for each copy between variables, so locals are values
//! of the IR wherever it is known which.

use std::cell::RefCell;

use cubecl::ir::{ConstantValue, ElemType, Instruction, Operation, Scope, Variable};
use ex_cubecl_core::program::assignments::{assigned, set_once};
use ex_cubecl_core::program::tree::{Program, Stmt, Type};

use crate::lower::types::{elem, ir_type};
use crate::lower::values::{constant, zero};

pub(super) struct Locals {
    /// The variable of each local.
    variables: Vec<Variable>,
    /// Which of them are variables: the others are names for one value.
    stored: Vec<bool>,
    /// The values that are known at the current place of the program.
    values: RefCell<Vec<Option<Variable>>>,
}

impl Locals {
    /// Variables are zero until they are set: of a value that was never set, a driver's compiler may drop even the store.
    pub fn new(scope: &mut Scope, program: &Program) -> Locals {
        let types = program.locals.iter().map(|ty| ir_type(*ty));
        let locals = Locals {
            variables: types.map(|ty| *scope.create_local_restricted(ty)).collect(),
            stored: set_once(program).into_iter().map(|once| !once).collect(),
            values: RefCell::new(vec![None; program.locals.len()]),
        };
        for (local, ty) in program.locals.iter().enumerate() {
            if locals.stored[local] {
                let none = match ty {
                    Type::Bool => constant(ConstantValue::Bool(false), ElemType::Bool),
                    Type::Of(dtype) => zero(elem(*dtype)),
                };
                locals.store(scope, local, none);
            }
        }
        locals
    }

    fn store(&self, scope: &mut Scope, local: usize, value: Variable) {
        let copy = Instruction::new(Operation::Copy(value), self.variables[local]);
        scope.register(copy);
    }

    pub fn set(&self, scope: &mut Scope, local: usize, value: Variable) {
        if self.stored[local] {
            self.store(scope, local, value);
        }
        self.values.borrow_mut()[local] = Some(value);
    }

    /// Sets a number to zero; a constant is not a value that expressions may use as it is.
    pub fn clear(&self, scope: &mut Scope, local: usize) {
        self.store(scope, local, zero(self.variables[local].ty.elem_type()));
        self.forget_one(local);
    }

    /// The current value; of a variable, a copy, because it may be set later.
    pub fn value(&self, scope: &mut Scope, local: usize) -> Variable {
        if let Some(value) = self.values.borrow()[local] {
            return value;
        }
        let variable = self.variables[local];
        let out = *scope.create_local(variable.ty);
        scope.register(Instruction::new(Operation::Copy(variable), out));
        self.values.borrow_mut()[local] = Some(out);
        out
    }

    /// What is known here, to be restored after a block whose values exist only in it.
    pub fn values(&self) -> Vec<Option<Variable>> {
        self.values.borrow().clone()
    }

    pub fn restore(&self, values: Vec<Option<Variable>>) {
        *self.values.borrow_mut() = values;
    }

    /// The locals that a block assigns have other values after it, and at the start of each of its iterations.
    pub fn forget(&self, block: &[Stmt]) {
        assigned(block, &mut |local| self.forget_one(local));
    }

    pub fn forget_one(&self, local: usize) {
        self.values.borrow_mut()[local] = None;
    }
}
