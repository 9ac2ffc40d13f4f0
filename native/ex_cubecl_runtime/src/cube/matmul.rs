//! Matrix products by cubek, which tiles them and chooses the best way for each device.

use cubecl::prelude::*;
use cubecl::server::Handle;
use cubek_matmul::definition::MatmulElems;
use cubek_matmul::launch::{Strategy, launch_ref};
use cubek_std::InputBinding;

use crate::kernels::LaunchResult;

/// Three matrices of `f32` without gaps, the last of which is written: `rows` by `inner`, `inner`
/// by `columns`, `rows` by `columns`.
pub struct Product {
    pub left: Handle,
    pub right: Handle,
    pub out: Handle,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

impl Product {
    /// Uses the cubek strategy that computes with plain `f32` on every device: the strategies for
    /// matrix units round to narrower types.
    pub fn queue<R: Runtime>(&self, client: &ComputeClient<R>) -> LaunchResult {
        let ty = f32::as_type_native_unchecked();
        let (rows, inner, columns) = (self.rows, self.inner, self.columns);
        let input = |handle, rows, columns| {
            InputBinding::new(matrix::<R>(handle, rows, columns), ty.storage_type())
        };
        launch_ref(
            &Strategy::SimpleUnit(Default::default()),
            client,
            input(&self.left, rows, inner),
            input(&self.right, inner, columns),
            matrix(&self.out, rows, columns),
            &mut MatmulElems::from_single_dtype(ty),
        )
        .map_err(|fault| format!("{fault:?}"))
    }
}

fn matrix<R: Runtime>(handle: &Handle, rows: usize, columns: usize) -> TensorBinding<R> {
    let (strides, shape) = ([columns, 1].into(), [rows, columns].into());
    // SAFETY: core has compared the buffer's number of elements with the lengths; cubek stays
    // inside them.
    unsafe { TensorBinding::from_raw_parts(handle.clone(), strides, shape) }
}
