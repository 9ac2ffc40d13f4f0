//! `ExCubecl.Replicated`.

use ex_cubecl_core::{DType, Error, replica};
use rustler::{Atom, Binary, ResourceArc, Term};

use crate::atoms;
use crate::error::{Answer, Fault};
use crate::list;
use crate::resource::BufferRef;
use crate::term::{Dims, ListOf, Wire};

/// The bytes of data, decoded once: all of them for each buffer, or each its part in turn.
#[rustler::nif(schedule = "DirtyIo")]
fn replicated_write<'a>(
    buffers: ListOf<ResourceArc<BufferRef>>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    split: bool,
) -> Answer<'a, Atom> {
    match data.decode::<Binary>() {
        Ok(binary) => write(&buffers, &binary, split),
        Err(_) => write(&buffers, &list::decode(data, dtype.0, &dims)?, split),
    }
}

fn write<'a>(buffers: &[ResourceArc<BufferRef>], bytes: &[u8], split: bool) -> Answer<'a, Atom> {
    let sizes: Vec<usize> = buffers
        .iter()
        .map(|buffer| buffer.0.bytes() as usize)
        .collect();
    let expected = match split {
        true => sizes.iter().sum(),
        false => sizes.first().copied().unwrap_or(0),
    };
    if bytes.len() != expected {
        return Err(Error::ByteMismatch {
            expected: expected as u64,
            actual: bytes.len() as u64,
        }
        .into());
    }
    let mut start = 0;
    let mut writes = Vec::with_capacity(buffers.len());
    for (buffer, size) in buffers.iter().zip(sizes) {
        writes.push((
            &buffer.0,
            bytes.get(start..start + size).unwrap_or_default(),
        ));
        start += if split { size } else { 0 };
    }
    replica::write_all(&writes).map_err(|(index, error)| {
        let device = buffers[index].0.device_id();
        Fault::On { device, error }
    })?;
    Ok(atoms::ok())
}
