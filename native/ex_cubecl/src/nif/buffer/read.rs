//! Reads of elements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ex_cubecl_core::driver::Progress;
use ex_cubecl_core::threads::worker::MULTI_DEVICE;
use ex_cubecl_core::transfer::{gather, start_read_all};
use ex_cubecl_core::{DType, Device, Error, Result};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, OwnedBinary, Reference, Term};

use super::progress;
use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::NifResult;
use crate::list;
use crate::read::{read, wait};
use crate::resource::{BufferArg, buffers};
use crate::term::{Dims, ListOf, Wire};

/// How long a preview waits for a busy device.
const PREVIEW_PATIENCE: Duration = Duration::from_millis(500);

/// Lists of up to this many bytes are made on the thread that read the bytes; longer ones on a
/// dirty scheduler.
const MAX_LIST_BYTES: usize = 16 << 10;

fn reply_binary<'a>(
    call: Call,
    buffer: BufferArg,
    (offset, count): (u64, u64),
    progress: Option<Progress>,
) -> Pending<'a> {
    let device = buffer.device().clone();
    call.continue_on(&device, move |call| {
        read(buffer, offset, count, progress, move |bytes| {
            call.reply_with(|env| Ok(Binary::from_owned(bytes?, env).to_term(env)));
        });
    })
}

#[rustler::nif]
fn buffer_read<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let range = (0, buffer.count());
    reply_binary(Call::new(env, tag), buffer, range, progress(watcher))
}

#[rustler::nif]
fn buffer_read_part<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    offset: u64,
    count: u64,
) -> Pending<'a> {
    reply_binary(Call::new(env, tag), buffer, (offset, count), None)
}

/// Queues the reads with no other call between them; each device then waits for its own.
#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_read_all<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffers: ListOf<BufferArg>,
) -> Pending<'a> {
    let call = Call::new(env, tag);
    let first = buffers.first().map(|buffer| buffer.device().clone());
    let is_common =
        |device: &Arc<Device>| buffers.iter().all(|it| Arc::ptr_eq(it.device(), device));
    match first.filter(is_common) {
        Some(device) => call.continue_on(&device, |call| read_all(call, buffers.0)),
        None => {
            MULTI_DEVICE.run(|| read_all(call, buffers.0))?;
            Ok(atoms::pending())
        }
    }
}

fn read_all(call: Call, handles: Vec<BufferArg>) {
    let started = match start_read_all(&buffers(&handles)) {
        Ok(started) => started,
        Err(error) => return call.reply::<Atom>(Err(error.into())),
    };
    let done = |all: Vec<Result<OwnedBinary>>| {
        call.reply_with(|env| {
            let all = all.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
            let all: Vec<_> = all.map(|bytes| Binary::from_owned(bytes, env)).collect();
            Ok(all.encode(env))
        });
    };
    // If no thread can be started, `done` is dropped, which sends an error.
    let slots = gather(started.len(), done).unwrap_or_default();
    for ((buffer, pending), slot) in handles.into_iter().zip(started).zip(slots) {
        let count = buffer.count();
        wait(buffer, count, Ok(pending), None, move |bytes| {
            slot.fill(bytes)
        });
    }
}

/// The elements as a list; for a long list `{bytes, binary, dtype}`, from which `binary_to_list` makes it.
fn elements<'a>(
    env: Env<'a>,
    bytes: Result<OwnedBinary>,
    dtype: DType,
    dims: &[u64],
) -> NifResult<'a, Term<'a>> {
    let bytes = bytes?;
    if bytes.len() <= MAX_LIST_BYTES {
        list::encode(env, &bytes, dtype, dims)
    } else {
        let bytes = Binary::from_owned(bytes, env);
        Ok((atoms::bytes(), bytes, Wire(dtype)).encode(env))
    }
}

#[rustler::nif]
fn buffer_elements<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    dims: Dims,
) -> Pending<'a> {
    let (dtype, count) = (buffer.dtype(), buffer.count());
    let device = buffer.device().clone();
    Call::new(env, tag).continue_on(&device, move |call| {
        read(buffer, 0, count, None, move |bytes| {
            call.reply_with(|env| elements(env, bytes, dtype, &dims));
        });
    })
}

/// The first elements, unless the device is too busy.
#[rustler::nif]
fn buffer_preview<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: BufferArg,
    max: u64,
) -> Pending<'a> {
    let (count, dtype) = (buffer.count().min(max), buffer.dtype());
    let (device, deadline) = (buffer.device().clone(), Instant::now() + PREVIEW_PATIENCE);
    Call::new(env, tag).continue_on(&device, move |call| {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return call.reply::<Atom>(Err(Error::Busy.into()));
        }
        let started = buffer.start_read_within(count, patience);
        wait(buffer, count, started, Some(patience), move |bytes| {
            call.reply_with(|env| elements(env, bytes, dtype, &[count]));
        });
    })
}
