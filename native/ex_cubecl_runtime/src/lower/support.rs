//! What a device supports.

use cubecl::features::AtomicUsage;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::program::tree::{Atomic, Group};

use crate::lower::types::{IrType, elem};

/// Checks a group against the device's limits of threads and shared memory.
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
    if bytes > room {
        Err(format!(
            "{bytes} bytes of shared memory: a group has {room} on this device"
        ))
    } else {
        Ok(())
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
