//! The product of two matrices.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::locks::Locks;
use crate::memory::allocation_tracker::Spec;

/// Longer axes would need more loop iterations than some drivers make.
const MOST: u64 = 1 << 14;

/// With fewer multiplications, compiling the library's kernel costs more than it saves: it takes seconds
/// on a CPU.
const WORTH: u64 = 1 << 24;

/// `left` (`rows` by `inner`) times `right` (`inner` by `columns`) in a new buffer; `None` if the
/// device's library has no kernel for them, or compiling it would not pay.
pub fn matmul(
    left: &Buffer,
    right: &Buffer,
    spec: Spec,
    [rows, inner, columns]: [u64; 3],
) -> Result<Option<Buffer>> {
    let device = left.device();
    let driver = device.driver()?;
    let out = Buffer::lazy(device.clone(), spec)?;
    let all = [
        (left, (rows, inner)),
        (right, (inner, columns)),
        (&out, (rows, columns)),
    ];
    for (buffer, lengths) in all {
        if !Arc::ptr_eq(buffer.device(), device) {
            buffer.device().driver()?;
            return Err(Error::OtherDevice {
                device: buffer.device_id(),
                expected: device.id(),
            });
        }
        let (expected, actual) = (lengths.0.saturating_mul(lengths.1), buffer.count());
        if actual != expected {
            return Err(Error::ShapeMismatch { expected, actual });
        }
    }
    let most = rows.max(inner).max(columns);
    if all.iter().any(|(buffer, _)| buffer.dtype() != DType::F32) || most > MOST {
        return Ok(None);
    }
    if rows * inner * columns < WORTH {
        return Ok(None);
    }
    let mut locks = Locks::lock([(left, false), (right, false), (&out, true)].into_iter());
    // No other call has this buffer: elements that the product leaves out, or that it does not write because
    // it fails, are never read.
    if let Some(content) = locks.content_mut(&out) {
        out.modify_under(content, true, |_| Ok(()))?;
    }
    let region = |buffer: &Buffer| buffer.source(locks.content(buffer)?);
    let ran = match (region(left)?, region(right)?, region(&out)?) {
        (Some(left), Some(right), Some(out)) => {
            let lengths = [rows, inner, columns];
            device.explain(driver.matmul(left, right, out, lengths))?
        }
        _ => false,
    };
    drop(locks);
    Ok(ran.then_some(out))
}
