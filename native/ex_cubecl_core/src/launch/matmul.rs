//! The product of two stacks of matrices by the library of the device.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::driver::{Matrices, Product};
use crate::error::{Error, Result};
use crate::locks::Locks;
use crate::memory::allocation_tracker::Spec;

/// Longer axes would need more loop iterations than some drivers make.
const MOST: u64 = 1 << 14;

/// Limit of workgroups along one axis of a launch, along which the matrices of a stack lie.
const MOST_MATRICES: u64 = 65_535;

/// Each further axis of a stack makes another kernel.
const MOST_AXES: usize = 4;

/// An operand: elements of a buffer from an offset on. The strides are those of [`Matrices`].
pub struct Operand<'a> {
    pub buffer: &'a Buffer,
    pub offset: u64,
    pub strides: &'a [u64],
}

/// The lengths of the axes of a product.
pub struct Lengths<'a> {
    pub batch: &'a [u64],
    pub rows: u64,
    pub inner: u64,
    pub columns: u64,
}

/// The product in a new buffer; `None` if the device's library has no kernel for the operands.
pub fn matmul(
    left: &Operand<'_>,
    right: &Operand<'_>,
    spec: Spec,
    lengths: &Lengths<'_>,
) -> Result<Option<Buffer>> {
    let device = left.buffer.device();
    let driver = device.driver()?;
    if !Arc::ptr_eq(right.buffer.device(), device) {
        right.buffer.device().driver()?;
        return Err(Error::OtherDevice {
            device: right.buffer.device_id(),
            expected: device.id(),
        });
    }
    let dtype = left.buffer.dtype();
    for actual in [right.buffer.dtype(), spec.dtype] {
        if actual != dtype {
            return Err(Error::TypeMismatch {
                expected: dtype,
                actual,
            });
        }
    }
    let Lengths {
        batch,
        rows,
        inner,
        columns,
    } = *lengths;
    let (left_part, right_part) = (
        left.part(batch, [rows, inner])?,
        right.part(batch, [inner, columns])?,
    );
    let out = Buffer::lazy(device.clone(), spec)?;
    let expected = product(batch.iter().chain(&[rows, columns]));
    if expected != Some(out.count()) {
        return Err(Error::ShapeMismatch {
            expected: expected.unwrap_or(u64::MAX),
            actual: out.count(),
        });
    }
    let lengths = [rows, inner, columns];
    let matrices = product(batch.iter()).unwrap_or(u64::MAX);
    if lengths.iter().any(|length| !(1..=MOST).contains(length))
        || !(1..=MOST_MATRICES).contains(&matrices)
        || batch.len() > MOST_AXES
        || !left.has_layout([rows, inner])
        || !right.has_layout([inner, columns])
    {
        return Ok(None);
    }
    let all = [(&left_part, false), (&right_part, false), (&out, true)];
    let mut locks = Locks::lock(all.into_iter());
    // No other call has this buffer: elements that the product leaves out, or that it does not write because
    // it fails, are never read.
    if let Some(content) = locks.content_mut(&out) {
        out.modify_under(content, true, |_| Ok(()))?;
    }
    let region = |buffer: &Buffer| buffer.source(locks.content(buffer)?);
    let ran = match (region(&left_part)?, region(&right_part)?, region(&out)?) {
        (Some(left_region), Some(right_region), Some(out)) => {
            let product = Product {
                left: left.matrices(left_region),
                right: right.matrices(right_region),
                out,
                dtype,
                batch,
                rows,
                inner,
                columns,
            };
            device.explain(driver.matmul(&product))?
        }
        _ => false,
    };
    drop(locks);
    Ok(ran.then_some(out))
}

impl<'a> Operand<'a> {
    /// The elements from the first one to the last one that the product reads, which are inside the buffer.
    fn part(&self, batch: &[u64], matrix: [u64; 2]) -> Result<Buffer> {
        let lengths = batch.iter().chain(&matrix);
        let count = reach(lengths, self.strides).unwrap_or(u64::MAX);
        if self.strides.len() != batch.len() + matrix.len() {
            return Err(Error::ShapeMismatch {
                expected: (batch.len() + matrix.len()) as u64,
                actual: self.strides.len() as u64,
            });
        }
        self.buffer.view(self.offset, count)
    }

    /// Whether the library reads matrices with these strides as they are: the rows or the columns are contiguous, and no
    /// matrix begins inside of another one.
    fn has_layout(&self, [rows, columns]: [u64; 2]) -> bool {
        let [batch @ .., row, column] = self.strides else {
            return false;
        };
        let row_major = *column == 1 && *row >= columns;
        let column_major = *row == 1 && *column >= rows;
        let apart = |stride: &u64| *stride == 0 || *stride >= *row.max(column);
        (row_major || column_major) && batch.iter().all(apart)
    }

    fn matrices(&self, region: crate::driver::Region<'a>) -> Matrices<'a> {
        Matrices {
            region,
            strides: self.strides,
        }
    }
}

fn product<'a>(lengths: impl Iterator<Item = &'a u64>) -> Option<u64> {
    lengths
        .copied()
        .try_fold(1u64, |product, length| product.checked_mul(length))
}

/// The number of elements from the first one of a view to its last one; `None` if it does not fit in 64 bits.
fn reach<'a>(lengths: impl Iterator<Item = &'a u64> + Clone, strides: &[u64]) -> Option<u64> {
    if lengths.clone().any(|length| *length == 0) {
        return Some(0);
    }
    lengths
        .zip(strides)
        .try_fold(1u64, |reach, (length, stride)| {
            (length - 1).checked_mul(*stride)?.checked_add(reach)
        })
}

#[cfg(test)]
mod tests {
    use super::reach;

    #[test]
    fn the_reach_of_a_view_ends_behind_its_last_element() {
        let reach = |lengths: &[u64], strides: &[u64]| reach(lengths.iter(), strides);
        assert_eq!(reach(&[3, 4], &[4, 1]), Some(12));
        assert_eq!(reach(&[5, 3, 4], &[0, 10, 2]), Some(27));
        assert_eq!(reach(&[0, 4], &[4, 1]), Some(0));
        assert_eq!(reach(&[], &[]), Some(1));
        assert_eq!(reach(&[3, 2], &[u64::MAX, 1]), None);
        assert_eq!(reach(&[2, 2], &[u64::MAX, 1]), None);
    }
}
