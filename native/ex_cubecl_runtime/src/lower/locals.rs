//! The locals of a program, and the elements at a thread's own index. CubeCL's optimizer goes through the whole kernel for each copy
//! between variables, and does not merge loads, so both are values of the IR wherever it is known which.

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
    known: RefCell<Known>,
}

/// The values that are known at the current place of the program.
#[derive(Clone)]
pub(super) struct Known {
    locals: Vec<Option<Variable>>,
    /// Elements of inputs, which no statement changes.
    own: Vec<Option<Variable>>,
}

impl Locals {
    /// Variables are zero until they are set: of a value that was never set, a driver's compiler may drop even the store.
    pub fn new(scope: &mut Scope, program: &Program) -> Locals {
        let types = program.locals.iter().map(|ty| ir_type(*ty));
        let locals = Locals {
            variables: types.map(|ty| *scope.create_local_restricted(ty)).collect(),
            stored: set_once(program).into_iter().map(|once| !once).collect(),
            known: RefCell::new(Known {
                locals: vec![None; program.locals.len()],
                own: vec![None; program.inputs.len()],
            }),
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
        self.known.borrow_mut().locals[local] = Some(value);
    }

    /// Sets a number to zero; a constant is not a value that expressions may use as it is.
    pub fn clear(&self, scope: &mut Scope, local: usize) {
        self.store(scope, local, zero(self.variables[local].ty.elem_type()));
        self.forget_one(local);
    }

    /// The current value; of a variable, a copy, because it may be set later.
    pub fn value(&self, scope: &mut Scope, local: usize) -> Variable {
        if let Some(value) = self.known.borrow().locals[local] {
            return value;
        }
        let variable = self.variables[local];
        let out = *scope.create_local(variable.ty);
        scope.register(Instruction::new(Operation::Copy(variable), out));
        self.known.borrow_mut().locals[local] = Some(out);
        out
    }

    /// The element of an input at the thread's own index; of another buffer, `None`.
    pub fn own_element(&self, slot: usize) -> Option<Variable> {
        self.known.borrow().own.get(slot).copied().flatten()
    }

    pub fn set_own_element(&self, slot: usize, value: Variable) {
        if let Some(own) = self.known.borrow_mut().own.get_mut(slot) {
            *own = Some(value);
        }
    }

    /// What is known here, to be restored after a block whose values exist only in it.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    pub fn restore(&self, known: Known) {
        *self.known.borrow_mut() = known;
    }

    /// The locals that a block assigns have other values after it, and at the start of each of its iterations.
    pub fn forget(&self, block: &[Stmt]) {
        assigned(block, &mut |local| self.forget_one(local));
    }

    pub fn forget_one(&self, local: usize) {
        self.known.borrow_mut().locals[local] = None;
    }
}
