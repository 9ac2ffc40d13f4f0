//! Decompositions of matrices in host memory.

use ex_cubecl_core::linear::{Batch, Matrices, Operation, Outcome};
use ex_cubecl_core::threads::worker::HOST;
use ex_cubecl_core::{DType, Error, Result};
use rustler::{Binary, Env, Reference};

use crate::call::{Call, MaybePending};
use crate::error::NifResult;
use crate::saved_binary::SavedBinary;
use crate::term::{ListOf, Wire};

/// What takes no longer is calculated on the caller's scheduler.
const SHORT: f64 = 100_000.0;

/// A call takes about as many nanoseconds, or as long as one matrix: calls of other processes come between.
const PART: f64 = 5_000_000.0;

type Operand<'a> = (Binary<'a>, Wire<DType>, u64, u64);

/// The results of an operation for some of `count` matrices, from the one with the index `first` on.
#[rustler::nif]
fn linear_run<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    operation: Wire<Operation>,
    operands: ListOf<Operand<'a>>,
    count: u64,
    first: u64,
    dtype: Wire<DType>,
) -> NifResult<'a, MaybePending<Wire<Outcome>>> {
    let matrices = operands.iter().map(|(_, dtype, rows, columns)| Matrices {
        dtype: dtype.0,
        rows: *rows,
        columns: *columns,
    });
    let matrices: Vec<Matrices> = matrices.collect();
    let batch = Batch::new(operation.0, &matrices, count, dtype.0)?;
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    let most = |nanoseconds: f64| (nanoseconds / batch.nanoseconds()) as usize;
    let short = most(SHORT);
    if batch.count().saturating_sub(first) <= short {
        let data: Vec<&[u8]> = operands
            .iter()
            .map(|operand| operand.0.as_slice())
            .collect();
        return Ok(MaybePending::Ready(Wire(batch.run(&data, first, short)?)));
    }
    let most = most(PART).max(1);
    let data = operands.iter().map(|operand| SavedBinary::new(operand.0));
    let data: Vec<SavedBinary> = data.collect();
    Call::new(env, tag).run_in(&HOST, move || {
        Ok(Wire(with_bytes(&data, |bytes| {
            batch.run(bytes, first, most)
        })?))
    })?;
    Ok(MaybePending::Pending)
}

fn with_bytes<T>(data: &[SavedBinary], run: impl FnOnce(&[&[u8]]) -> Result<T>) -> Result<T> {
    match data {
        [a] => a.read(|a| run(&[a])),
        [a, b] => a.read(|a| b.read(|b| run(&[a, b]))),
        _ => Err(Error::driver("an operation takes one or two operands")),
    }
}
