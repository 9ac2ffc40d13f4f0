//! Types of core as types of CubeCL's IR.

use cubecl::ir::{ElemType, FloatKind, IntKind, StorageType, UIntKind};
use ex_cubecl_core::dtype::{DType, Kind};
use ex_cubecl_core::program::tree::LANES;
use ex_cubecl_core::program::tree::Type;

pub type IrType = cubecl::ir::Type;

pub const U32: ElemType = ElemType::UInt(UIntKind::U32);
pub const U64: ElemType = ElemType::UInt(UIntKind::U64);
pub const S32: ElemType = ElemType::Int(IntKind::I32);

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
pub fn carrier(dtype: DType) -> DType {
    match (dtype.size(), dtype.kind()) {
        (4.., _) => dtype,
        (_, Kind::Float) => DType::F32,
        (_, Kind::Signed) => DType::S32,
        (_, Kind::Unsigned) => DType::U32,
    }
}

pub fn ir_type(ty: Type) -> IrType {
    match ty {
        Type::Bool => IrType::scalar(ElemType::Bool),
        Type::Of(dtype) => IrType::scalar(elem(dtype)),
    }
}

/// The type of the elements of a buffer or of a shared array.
pub fn list_type(dtype: DType, atomics: &[usize], slot: usize) -> IrType {
    IrType::new(if atomics.contains(&slot) {
        StorageType::Atomic(elem(dtype))
    } else {
        StorageType::Scalar(elem(dtype))
    })
}

/// The type of the vectors of a buffer.
pub fn vector_type(dtype: DType) -> IrType {
    IrType::scalar(elem(dtype)).with_vector_size(LANES)
}
