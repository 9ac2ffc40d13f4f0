//! Lowers the tree of a kernel to CubeCL's IR, which each runtime compiles for its device.
//!
//! A thread works on the positions `own, own + threads, ...` below a number that comes with the
//! launch; in a kernel with groups it is one thread of one group. Whatever a tree contains, an
//! index is compared with its buffer's length before it is used: reads out of bounds give zero,
//! writes out of bounds do nothing.

mod body;
mod casts;
mod floats;
mod functions;
mod launch;
mod values;

use std::sync::Arc;

use cubecl::ir::{ElemType, FloatKind, IntKind, StorageType, UIntKind, Variable};
use cubecl::prelude::*;

use self::body::{Emitter, Listed};
use self::floats::Veil;
use self::values::{cast, ir_type, number, zero};
use super::compiled::Key;
use crate::dtype::{DType, Kind};
use crate::kernel::tree::Program;

pub use self::launch::{Bound, Launch, changes, check_group, threads};

type IrType = cubecl::ir::Type;

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

/// The type that carries a number to the device: narrow types are sent as a 32-bit word of their
/// kind.
fn carrier(dtype: DType) -> DType {
    match (dtype.size(), dtype.kind()) {
        (4.., _) => dtype,
        (_, Kind::Float) => DType::F32,
        (_, Kind::Signed) => DType::S32,
        (_, Kind::Unsigned) => DType::U32,
    }
}

struct Tree<R: Runtime> {
    /// A watched kernel has one more buffer, which records that the driver stopped a loop before
    /// its end.
    key: Key,
    program: Arc<Program>,
    settings: KernelSettings,
    client: ComputeClient<R>,
}

impl<R: Runtime> KernelMetadata for Tree<R> {
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

impl<R: Runtime> CubeKernel for Tree<R> {
    fn define(&self) -> KernelDefinition {
        self.key.compiles();
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
            .key
            .is_watched()
            .then(|| *builder.output_array(IrType::scalar(S32)));
        let word = StorageType::Scalar(U32);
        let positions = *builder.scalar(word);
        let threads = *builder.scalar(word);
        let has = |ty| self.client.properties().supports_type(ty);
        let veil = Veil {
            zero: *builder.scalar(word),
            words_of_16: has(ElemType::UInt(UIntKind::U16)),
            words_of_64: has(U64),
        };
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
            veil,
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
