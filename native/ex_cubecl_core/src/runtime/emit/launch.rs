//! A launch of a tree, and what a device has for one.

use std::sync::Arc;

use cubecl::features::AtomicUsage;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use super::{IrType, S32, Tree, U32, carrier, elem, list_type};
use crate::dtype::DType;
use crate::kernel::tree::{Atomic, Group, Program};
use crate::numeric;
use crate::runtime::kernels::{MAX_CUBES, THREADS, Window};

/// Along one axis of a launch.
const MOST_CUBES: u32 = 65_535;

/// So many groups, or a few more: every device takes 65,535 along each axis.
fn in_rows(groups: u32) -> (u32, u32) {
    let rows = groups.div_ceil(MOST_CUBES).max(1);
    (groups.div_ceil(rows).max(1), rows)
}

/// What a device has for the threads of a group.
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
    match bytes > room {
        true => Err(format!(
            "{bytes} bytes of shared memory: a group has {room} on this device"
        )),
        false => Ok(()),
    }
}

/// Whether the device can change elements of this type in one piece.
pub fn changes<R: Runtime>(client: &ComputeClient<R>, op: Atomic, dtype: DType) -> bool {
    let ty = IrType::new(StorageType::Atomic(elem(dtype)));
    let can = client.properties().atomic_type_usage(ty);
    let wanted = match op {
        Atomic::Add => AtomicUsage::Add,
        Atomic::Min | Atomic::Max => AtomicUsage::MinMax,
        Atomic::And | Atomic::Or | Atomic::Xor | Atomic::Exchange => AtomicUsage::LoadStore,
    };
    can.contains(wanted) && can.contains(AtomicUsage::LoadStore)
}

/// A buffer of a launch: the window that is bound, and how many elements there are.
pub struct Bound {
    pub window: Window,
    pub dtype: DType,
    pub count: u64,
}

/// Threads of a launch without groups.
pub fn threads(positions: u32) -> u32 {
    positions.div_ceil(THREADS).clamp(1, MAX_CUBES) * THREADS
}

/// A program over `positions` positions. Each number is the bits of its element.
pub struct Launch {
    pub program: Arc<Program>,
    pub buffers: Vec<Bound>,
    pub scalars: Vec<u64>,
    pub positions: u32,
    /// A word that becomes 1 where the driver stops a loop before its end.
    pub status: Option<Window>,
}

impl Launch {
    pub fn queue<R: Runtime>(&self, client: &ComputeClient<R>) {
        let program = &self.program;
        let group = program.group.as_ref();
        let cube = group.map_or(THREADS, |group| group.threads);
        let threads = threads(self.positions);
        let cubes = match group {
            Some(_) => in_rows(self.positions),
            None => (threads / THREADS, 1),
        };
        let settings = KernelSettings::default()
            .cube_dim(CubeDim::new_1d(cube))
            .address_type(AddressType::U32)
            .kernel_name("ex_cubecl_kernel");
        let mut launcher = KernelLauncher::<R>::new(settings.clone());
        let atomics = program.atomics();
        for (slot, buffer) in self.buffers.iter().enumerate() {
            let ty = list_type(buffer.dtype, &atomics, slot);
            bind(&mut launcher, &buffer.window, buffer.dtype, ty);
        }
        if let Some(window) = &self.status {
            bind(&mut launcher, window, DType::S32, IrType::scalar(S32));
        }
        word(&mut launcher, self.positions);
        word(&mut launcher, threads);
        for buffer in &self.buffers {
            let first = buffer.window.offset / buffer.dtype.size();
            word(&mut launcher, first as u32);
            word(&mut launcher, buffer.count as u32);
        }
        if let Some(window) = &self.status {
            word(&mut launcher, (window.offset / 4) as u32);
        }
        for (dtype, bits) in program.scalars.iter().zip(&self.scalars) {
            let carrier = carrier(*dtype);
            let bits = numeric::convert_bits((*dtype).into(), carrier.into(), *bits);
            let bytes = &bits.to_le_bytes()[..carrier.size() as usize];
            launcher.register_scalar_raw(bytes, StorageType::Scalar(elem(carrier)));
        }
        let tree = Tree::<R> {
            program: program.clone(),
            watched: self.status.is_some(),
            settings,
            client: client.clone(),
        };
        launcher.launch(CubeCount::Static(cubes.0, cubes.1, 1), tree, client);
    }
}

fn bind<R: Runtime>(launcher: &mut KernelLauncher<R>, window: &Window, dtype: DType, ty: IrType) {
    let elements = (window.words * 4 / dtype.size()) as usize;
    // SAFETY: the window was cut from a page that has these words; the kernel compares each index
    // with the buffer's count, which ends inside of the window.
    let argument = unsafe { ArrayArg::from_raw_parts(window.handle.clone(), elements) };
    launcher.register_array(argument, ty);
}

fn word<R: Runtime>(launcher: &mut KernelLauncher<R>, value: u32) {
    launcher.register_scalar_raw(&value.to_ne_bytes(), StorageType::Scalar(U32));
}
