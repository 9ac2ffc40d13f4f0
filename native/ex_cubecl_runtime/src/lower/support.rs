//! What a device supports.

use cubecl::features::{AtomicUsage, Plane};
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use ex_cubecl_core::driver::GroupLimits;
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::program::tree::Atomic;

use crate::lower::types::{IrType, elem};

/// The largest workgroup, in threads and in bytes of shared memory.
pub fn group_limits<R: Runtime>(client: &ComputeClient<R>) -> GroupLimits {
    let hardware = &client.properties().hardware;
    GroupLimits {
        threads: hardware.max_units_per_cube.min(hardware.max_cube_dim.0),
        shared_bytes: hardware.max_shared_memory_size as u64,
    }
}

/// Whether the device supports this atomic operation on `dtype`.
pub fn supports_atomic<R: Runtime>(client: &ComputeClient<R>, op: Atomic, dtype: DType) -> bool {
    let ty = IrType::new(StorageType::Atomic(elem(dtype)));
    let can = client.properties().atomic_type_usage(ty);
    let wanted = match op {
        Atomic::Add => AtomicUsage::Add,
        Atomic::Min | Atomic::Max => AtomicUsage::MinMax,
        Atomic::And | Atomic::Or | Atomic::Xor | Atomic::Exchange => AtomicUsage::LoadStore,
    };
    can.contains(wanted) && can.contains(AtomicUsage::LoadStore)
}

/// Whether CubeCL reports operations on planes.
pub fn supports_planes<R: Runtime>(client: &ComputeClient<R>) -> bool {
    client.features().plane.contains(Plane::Ops)
}
