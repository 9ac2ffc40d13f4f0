//! Matrix products by cubek, which tiles them.

use cubecl::ir::StorageType;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::{launch_naive, launch_tiling};
use cubek_matmul::routines::simple_unit::SimpleUnitAlgorithm;
use cubek_std::InputBinding;

use ex_cubecl_core::driver::Product;
use ex_cubecl_core::dtype::DType;

use crate::kernels::LaunchResult;
use crate::lower::types::elem;

/// Whether the kernels of cubek calculate with a type on this device. Those for narrow integers would add up in the
/// narrow type.
pub fn supports<R: Runtime>(client: &ComputeClient<R>, dtype: DType) -> bool {
    use DType::*;
    let known = matches!(dtype, F16 | Bf16 | F32 | F64 | S32 | U32 | S64 | U64);
    known && client.properties().supports_type(elem(dtype))
}

/// A product that is ready to be launched.
pub struct QueuedProduct {
    left: Matrix,
    right: Matrix,
    out: Matrix,
    ty: StorageType,
}

/// A stack of matrices as a tensor whose last axes are rows and columns.
struct Matrix {
    handle: Handle,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl QueuedProduct {
    pub fn new(product: &Product<'_>, [left, right, out]: [Handle; 3]) -> Self {
        let shape = |rows, columns| {
            let lengths = product.batch.iter().copied().chain([rows, columns]);
            lengths.map(|length| length as usize).collect::<Vec<_>>()
        };
        let strides = |strides: &[u64]| strides.iter().map(|stride| *stride as usize).collect();
        let out_shape = shape(product.rows, product.columns);
        QueuedProduct {
            left: Matrix {
                handle: left,
                shape: shape(product.rows, product.inner),
                strides: strides(product.left.strides),
            },
            right: Matrix {
                handle: right,
                shape: shape(product.inner, product.columns),
                strides: strides(product.right.strides),
            },
            out: Matrix {
                handle: out,
                strides: contiguous(&out_shape),
                shape: out_shape,
            },
            ty: StorageType::Scalar(elem(product.dtype)),
        }
    }

    /// Launches the fastest of cubek's strategies that need no matrix units, measured on Mesa's lavapipe (two cores, CPU time
    /// of the process, the least of four runs, milliseconds):
    ///
    /// | rows, inner, columns | SimpleUnit | DoubleUnit | Naive | GemvUnitPerpendicular |
    /// |---|---|---|---|---|
    /// | f32 1024, 1024, 1024 | 475 | 720 | 2045 | |
    /// | the same, one or both transposed | 350 to 385 | 595 to 625 | 1850 to 2240 | |
    /// | f32 300, 300, 300 | 15 | 20 | 40 | |
    /// | f32 16 times 128, 128, 128 | 20 | 35 | 70 | |
    /// | f32 64, 4096, 64 | 5 | 5 | 25 | |
    /// | f32 4096, 64, 256 | 25 | 100 | 110 | |
    /// | f16 512, 512, 512 | 60 | 85 | 240 | |
    /// | f64 512, 512, 512 | 130 | 225 | 500 | |
    /// | s32, s64 512, 512, 512 | 80, 105 | 100, 180 | 195, 335 | |
    /// | f32 4096, 4096, 1 | 350 | 230 | 20 | |
    /// | f32 1, 4096, 4096 | 140 | 110 | 285 | 90 |
    ///
    /// SimpleVecMat and DoubleVecMat refuse all of these. A row times a matrix is left to the kernel of the caller, which takes as
    /// long as GemvUnitPerpendicular. Strategies for matrix units round `f32` to narrower types; none is used, because no
    /// device that has them could be measured.
    ///
    /// `cubek_matmul::launch::launch_ref` would compile all 40 strategies for each runtime: a minute of the build, megabytes of the library.
    pub fn queue<R: Runtime>(&self, client: &ComputeClient<R>) -> LaunchResult {
        let input = |matrix: &Matrix| InputBinding::new(matrix.tensor::<R>(), self.ty);
        let (left, right, out) = (input(&self.left), input(&self.right), self.out.tensor());
        // The accumulators of 16-bit floats are of `f32`.
        let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
            lhs: self.ty,
            rhs: self.ty,
            out: self.ty,
        });
        let ran = match self.out.shape.last() {
            Some(1) => launch_naive::launch_ref(client, left, right, out, &types),
            _ => launch_tiling::launch_ref::<R, SimpleUnitAlgorithm>(
                client,
                left,
                right,
                out,
                &Default::default(),
                &mut types,
            ),
        };
        ran.map_err(|fault| format!("{fault:?}"))
    }
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

impl Matrix {
    fn tensor<R: Runtime>(&self) -> TensorBinding<R> {
        let (strides, shape) = (self.strides.clone().into(), self.shape.clone().into());
        // SAFETY: core has checked that each element with these lengths and strides is inside the buffer; cubek stays
        // inside the lengths.
        unsafe { TensorBinding::from_raw_parts(self.handle.clone(), strides, shape) }
    }
}
