//! A program as a CubeCL kernel, which CubeCL compiles when it is first launched.
//!
//! A thread works on one global index, if that is below a number that comes with the launch; in a kernel with groups it is one
//! thread of one group. There is no loop over several indices, which would take a CPU driver a quarter of the time of a copy. Whatever a tree contains, an
//! index is compared with its buffer's length before it is used: reads out of bounds give zero,
//! writes out of bounds do nothing.

use std::sync::Arc;

use cubecl::ir::{StorageType, Variable};
use cubecl::prelude::*;
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::program::tree::Program;

use crate::lower::compiled::Key;
use crate::lower::expressions::{ArrayArgument, Lowering, load_from, store_in};
use crate::lower::floats::BlackBox;
use crate::lower::locals::Locals;
use crate::lower::types::{IrType, S32, U32, U64, carrier, elem, list_type, vector_type};
use crate::lower::values::{cast, number, zero};
use cubecl::ir::{ElemType, UIntKind};

/// The kernel of a program.
pub struct ProgramKernel<R: Runtime> {
    /// A checked kernel has one more buffer, which records that the driver stopped a loop before
    /// its end.
    pub key: Key,
    pub program: Arc<Program>,
    pub settings: KernelSettings,
    pub client: ComputeClient<R>,
}

impl<R: Runtime> KernelMetadata for ProgramKernel<R> {
    fn name(&self) -> &'static str {
        "ex_cubecl_kernel"
    }

    // Only the slot: any other information would create further entries in CubeCL's map.
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.key.clone())
    }

    fn address_type(&self) -> StorageType {
        self.settings.address_type.unsigned_type()
    }
}

impl<R: Runtime> CubeKernel for ProgramKernel<R> {
    fn define(&self) -> KernelDefinition {
        self.key.compiles();
        let mut builder = KernelBuilder::default();
        builder.runtime_properties(R::target_properties());
        builder.device_properties(self.client.properties());
        self.settings.address_type.register(&mut builder.scope);
        let program = &self.program;
        let atomics = program.atomics();
        let vectors = program.vectors();
        let listed = |(slot, dtype): (usize, &DType)| {
            if vectors.contains(&slot) {
                (vector_type(*dtype), slot)
            } else {
                (list_type(*dtype, &atomics, slot), slot)
            }
        };
        let all = program.inputs.iter().chain(&program.outputs);
        let lists: Vec<Variable> = all
            .enumerate()
            .map(listed)
            .map(|(ty, slot)| {
                if slot < program.inputs.len() {
                    *builder.input_array(ty)
                } else {
                    *builder.output_array(ty)
                }
            })
            .collect();
        let status = self
            .key
            .checks_loops()
            .then(|| *builder.output_array(IrType::scalar(S32)));
        let word = StorageType::Scalar(U32);
        let invocations = *builder.scalar(word);
        let has = |ty| self.client.properties().supports_type(ty);
        let zero_word = *builder.scalar(word);
        let mut buffers: Vec<ArrayArgument> = lists
            .into_iter()
            .map(|list| ArrayArgument {
                list,
                offset: Some(*builder.scalar(word)),
                len: *builder.scalar(word),
            })
            .collect();
        let status = status.map(|list| ArrayArgument {
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
        let hidden = if program.branches() {
            unnumbered(scope, zero_word)
        } else {
            zero_word
        };
        let words_of_16 = has(ElemType::UInt(UIntKind::U16));
        let black_box = BlackBox::new(scope, hidden, words_of_16, has(U64));
        for (at, (dtype, len)) in program.shared().iter().enumerate() {
            let ty = list_type(*dtype, &atomics, program.buffers() + at);
            buffers.push(ArrayArgument {
                list: *scope.create_shared_array(ty, *len as usize, None),
                offset: None,
                len: number(i64::from(*len), U32),
            });
        }
        let scalars = carriers
            .into_iter()
            .map(|(carrier, ty)| cast(scope, carrier, ty))
            .collect();
        let locals = Locals::new(scope, program);
        let mut lowering = Lowering {
            own: vec![None; buffers.len()],
            buffers,
            scalars,
            locals,
            index: zero(U32),
            global_id: zero(S32),
            group_id: zero(S32),
            local_id: zero(S32),
            report: program.report,
            status,
            black_box,
        };
        match &program.group {
            Some(group) => lowering.in_groups(scope, program, group.threads, invocations),
            None => lowering.one_by_one(scope, program, invocations),
        }
        builder.build(self.settings.clone())
    }
}

/// The same word, read from an array. CubeCL's optimizer numbers the values of expressions, except of those that depend on
/// elements of arrays, and moves numbered expressions into other blocks. CubeCL 0.10 panics if it moves one of
/// which an operand is not available there. It sees through an array whose indices are constants.
fn unnumbered(scope: &mut Scope, word: Variable) -> Variable {
    let array = ArrayArgument {
        list: *scope.create_local_array(IrType::scalar(U32), 1),
        offset: None,
        len: number(1, U32),
    };
    store_in(scope, &array, word, word);
    load_from(scope, &array, word)
}
