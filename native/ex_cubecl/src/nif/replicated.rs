//! `ExCubecl.Replicated`.

use std::ops::Range;
use std::sync::Arc;

use ex_cubecl_core::replicas;
use ex_cubecl_core::threads::worker::MULTI_DEVICE;
use ex_cubecl_core::transfer::gather;
use ex_cubecl_core::{Buffer, DType, Error, Result};
use rustler::{Atom, Binary, Env, Reference, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Data, Pending};
use crate::error::{NifError, NifResult};
use crate::list;
use crate::resource::BufferRef;
use crate::term::{Dims, ListOf, Wire};

type Ref = ResourceArc<BufferRef>;

/// Decodes the data once and writes it to the buffers: all of it to each buffer, or a part to each
/// in turn.
#[rustler::nif(schedule = "DirtyCpu")]
fn replicated_write<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffers: ListOf<Ref>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    split: bool,
) -> Pending<'a> {
    let call = Call::new(env, tag);
    match data.decode::<Binary>() {
        Ok(binary) => {
            let uploads = uploads(&buffers, binary.len(), split)?.into_iter();
            write(
                call,
                buffers.0,
                uploads.map(|part| Source::Binary(Data::keep(binary), part)),
            )
        }
        Err(_) => {
            let bytes = Arc::new(list::decode(data, dtype.0, &dims)?);
            let uploads = uploads(&buffers, bytes.len(), split)?.into_iter();
            write(
                call,
                buffers.0,
                uploads.map(|part| Source::List(bytes.clone(), part)),
            )
        }
    }
}

/// The range of bytes for each buffer.
fn uploads<'a>(buffers: &[Ref], bytes: usize, split: bool) -> NifResult<'a, Vec<Range<usize>>> {
    let mut start = 0;
    let mut end = 0;
    let mut parts = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        end = start + buffer.0.bytes() as usize;
        parts.push(start..end);
        start = if split { end } else { 0 };
    }
    if bytes == end {
        return Ok(parts);
    }
    let (expected, actual) = (end as u64, bytes as u64);
    Err(Error::ByteMismatch { expected, actual }.into())
}

enum Source {
    Binary(Data, Range<usize>),
    List(Arc<Vec<u8>>, Range<usize>),
}

impl Source {
    fn upload(&self, target: &Buffer) -> Result<Buffer> {
        let upload = |bytes: &[u8], part: &Range<usize>| {
            replicas::upload(target, bytes.get(part.clone()).unwrap_or_default())
        };
        match self {
            Source::Binary(data, part) => data.read(|bytes| upload(bytes, part)),
            Source::List(bytes, part) => upload(bytes, part),
        }
    }
}

/// Each device uploads to a new buffer for its replica; after all uploads, all replicas are
/// exchanged.
fn write<'a>(call: Call, targets: Vec<Ref>, sources: impl Iterator<Item = Source>) -> Pending<'a> {
    let targets = Arc::new(targets);
    let all = targets.clone();
    let slots = gather(targets.len(), move |uploads| {
        // Another device may hold the lock of its replica for as long as it is busy.
        let _ = MULTI_DEVICE.run(move || call.answer(exchange(&all, uploads)));
    })?;
    for (index, (source, slot)) in sources.zip(slots).enumerate() {
        let targets = targets.clone();
        let device = targets[index].0.device().clone();
        device
            .worker()
            .run(move || slot.fill(source.upload(&targets[index].0)))?;
    }
    Ok(atoms::pending())
}

fn exchange(targets: &[Ref], uploads: Vec<Result<Buffer>>) -> NifResult<'static, Atom> {
    let on = |index: usize, error| {
        let device = targets[index].0.device_id();
        NifError::from(error).on_device(device)
    };
    let mut fresh = Vec::with_capacity(uploads.len());
    for (index, upload) in uploads.into_iter().enumerate() {
        fresh.push(upload.map_err(|error| on(index, error))?);
    }
    let pairs: Vec<(&Buffer, &Buffer)> = targets.iter().map(|it| &it.0).zip(&fresh).collect();
    replicas::exchange_all(&pairs).map_err(|(index, error)| on(index, error))?;
    Ok(atoms::ok())
}
