//! The locals of a program, and the elements at a thread's own index. CubeCL's optimizer goes through the whole kernel for each copy
//! between variables, and does not merge loads, so both are values of the IR where that is simple.

use std::cell::Cell;

use cubecl::ir::{ConstantValue, ElemType, Instruction, Operation, Scope, Variable};
use ex_cubecl_core::program::assignments::set_once;
use ex_cubecl_core::program::tree::{Program, Type};

use crate::lower::types::{elem, ir_type};
use crate::lower::values::{constant, zero};

pub(super) struct Locals {
    all: Vec<Local>,
    /// The elements of inputs that were loaded, if the program has no branches: they are known from there on.
    own: Option<Vec<Cell<Option<Variable>>>>,
}

enum Local {
    /// A name for one value, which is assigned before it is read.
    Value(Cell<Variable>),
    /// Assigned at several places. A value that is read instead of the variable where it is known makes CubeCL 0.10 panic for some
    /// kernels, which moves expressions between blocks.
    Stored(Variable),
}

impl Locals {
    pub fn new(scope: &mut Scope, program: &Program) -> Locals {
        let once = set_once(program);
        let all = program.locals.iter().zip(once);
        let own = (!program.branches()).then(|| vec![Cell::new(None); program.inputs.len()]);
        Locals {
            all: all.map(|(ty, once)| local(scope, *ty, once)).collect(),
            own,
        }
    }

    pub fn set(&self, scope: &mut Scope, local: usize, value: Variable) {
        match &self.all[local] {
            Local::Value(known) => known.set(value),
            Local::Stored(variable) => store(scope, *variable, value),
        }
    }

    pub fn clear(&self, scope: &mut Scope, local: usize) {
        if let Local::Stored(variable) = &self.all[local] {
            store(scope, *variable, zero(variable.ty.elem_type()));
        }
    }

    /// The current value; of a variable, a copy, because it may be set later.
    pub fn value(&self, scope: &mut Scope, local: usize) -> Variable {
        match &self.all[local] {
            Local::Value(known) => known.get(),
            Local::Stored(variable) => {
                let out = *scope.create_local(variable.ty);
                store(scope, out, *variable);
                out
            }
        }
    }

    /// The element of an input at the thread's own index, if it is known.
    pub fn own_element(&self, slot: usize) -> Option<Variable> {
        self.own.as_ref()?.get(slot)?.get()
    }

    pub fn set_own_element(&self, slot: usize, value: Variable) {
        if let Some(known) = self.own.as_ref().and_then(|own| own.get(slot)) {
            known.set(Some(value));
        }
    }
}

fn store(scope: &mut Scope, variable: Variable, value: Variable) {
    scope.register(Instruction::new(Operation::Copy(value), variable));
}

/// A variable is zero until it is set: of a value that was never set, a driver's compiler may drop even the store.
fn local(scope: &mut Scope, ty: Type, once: bool) -> Local {
    let none = match ty {
        Type::Bool => constant(ConstantValue::Bool(false), ElemType::Bool),
        Type::Of(dtype) => zero(elem(dtype)),
    };
    if once {
        return Local::Value(Cell::new(none));
    }
    let variable = *scope.create_local_restricted(ir_type(ty));
    store(scope, variable, none);
    Local::Stored(variable)
}
