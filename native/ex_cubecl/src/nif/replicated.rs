//! `ExCubecl.Replicated`.

use std::ops::Range;
use std::sync::Arc;

use ex_cubecl_core::replicas;
use ex_cubecl_core::threads::worker::MULTI_DEVICE;
use ex_cubecl_core::transfer::gather;
use ex_cubecl_core::{Buffer, DType, Error, Result};
use rustler::{Atom, Binary, Env, Reference, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifError, NifResult};
use crate::list;
use crate::resource::{BufferArg, buffers};
use crate::saved_binary::SavedBinary;
use crate::term::{Dims, ListOf, Wire};

/// Decodes the data once and writes it to the buffers: all of it to each buffer, or a part to each
/// in turn.
#[rustler::nif(schedule = "DirtyCpu")]
fn replicated_write<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffers: ListOf<BufferArg>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    split: bool,
) -> Pending<'a> {
    let call = Call::new(env, tag);
    if let Ok(binary) = data.decode::<Binary>() {
        let ranges = ranges(&buffers, binary.len(), split)?.into_iter();
        let source = |range| Source::Binary(SavedBinary::new(binary), range);
        return write(call, buffers.0, ranges.map(source));
    }
    let bytes = Arc::new(list::decode(data, dtype.0, &dims)?);
    let ranges = ranges(&buffers, bytes.len(), split)?.into_iter();
    let source = |range| Source::List(bytes.clone(), range);
    write(call, buffers.0, ranges.map(source))
}

/// The range of bytes for each buffer.
fn ranges<'a>(
    buffers: &[BufferArg],
    bytes: usize,
    split: bool,
) -> NifResult<'a, Vec<Range<usize>>> {
    let mut start = 0;
    let mut end = 0;
    let mut ranges = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        end = start + buffer.bytes() as usize;
        ranges.push(start..end);
        start = if split { end } else { 0 };
    }
    if bytes == end {
        return Ok(ranges);
    }
    let (expected, actual) = (end as u64, bytes as u64);
    Err(Error::ByteMismatch { expected, actual }.into())
}

/// The data of one upload.
enum Source {
    Binary(SavedBinary, Range<usize>),
    List(Arc<Vec<u8>>, Range<usize>),
}

impl Source {
    fn upload(&self, target: &Buffer) -> Result<Buffer> {
        let upload = |bytes: &[u8], range: &Range<usize>| {
            replicas::upload(target, bytes.get(range.clone()).unwrap_or_default())
        };
        match self {
            Source::Binary(data, range) => data.read(|bytes| upload(bytes, range)),
            Source::List(bytes, range) => upload(bytes, range),
        }
    }
}

/// Each device uploads to a new buffer for its replica; after all uploads, all replicas are
/// exchanged.
fn write<'a>(
    call: Call,
    targets: Vec<BufferArg>,
    sources: impl Iterator<Item = Source>,
) -> Pending<'a> {
    let targets = Arc::new(targets);
    let all = targets.clone();
    let slots = gather(targets.len(), move |uploads| {
        // Another device may hold the lock of its replica for as long as it is busy.
        let _ = MULTI_DEVICE.run(move || call.reply(exchange(&all, uploads)));
    })?;
    for (index, (source, slot)) in sources.zip(slots).enumerate() {
        let targets = targets.clone();
        let device = targets[index].device().clone();
        device
            .worker()
            .run(move || slot.fill(source.upload(&targets[index])))?;
    }
    Ok(atoms::pending())
}

fn exchange(targets: &[BufferArg], uploads: Vec<Result<Buffer>>) -> NifResult<'static, Atom> {
    let on = |index: usize, error| {
        let device = targets[index].device_id();
        NifError::from(error).on_device(device)
    };
    let mut fresh = Vec::with_capacity(uploads.len());
    for (index, upload) in uploads.into_iter().enumerate() {
        fresh.push(upload.map_err(|error| on(index, error))?);
    }
    let pairs: Vec<(&Buffer, &Buffer)> = buffers(targets).into_iter().zip(&fresh).collect();
    replicas::exchange_all(&pairs).map_err(|(index, error)| on(index, error))?;
    Ok(atoms::ok())
}
