//! `ExCubecl.Buffer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ex_cubecl_core::driver::{PendingRead, Progress};
use ex_cubecl_core::registry;
use ex_cubecl_core::threads::worker::MULTI_DEVICE;
use ex_cubecl_core::transfer::{copy_across, gather, start_read_all};
use ex_cubecl_core::{Buffer, DType, Device, DeviceId, Error, Result};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, OwnedBinary, Reference, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Data, Pending};
use crate::error::{NifError, NifResult};
use crate::list;
use crate::notifier::notify;
use crate::resource::{BufferRef, Held, finish_read, handle};
use crate::term::{AllocOptions, Dims, ListOf, Wire, spec};

type Ref = ResourceArc<BufferRef>;

/// How long a preview waits for a busy device.
const PREVIEW_PATIENCE: Duration = Duration::from_millis(500);

/// Lists of up to this many bytes are made on the thread that read the bytes; longer ones on a
/// dirty scheduler.
const SHORT_LIST: usize = 16 << 10;

/// Lists of up to this many cells are decoded on the caller's scheduler, which takes microseconds.
const MOST_CELLS: u64 = 32 << 10;

/// Sends `{progress, bytes}` to a watcher process during a transfer.
fn progress(watcher: Option<LocalPid>) -> Option<Progress> {
    let pid = watcher?;
    Some(Arc::new(move |bytes| {
        notify(pid, move |env| (atoms::progress(), bytes).encode(env))
    }))
}

/// Runs a call on a buffer on the thread of its device.
fn on<'a, T: Encoder>(
    call: Call,
    buffer: Ref,
    work: impl FnOnce(&Buffer) -> NifResult<'static, T> + Send + 'static,
) -> Pending<'a> {
    let device = buffer.0.device().clone();
    call.run(&device, move || work(&buffer.0))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_from_list<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    options: AllocOptions,
) -> Pending<'a> {
    let bytes = list::decode(data, dtype.0, &dims)?;
    let spec = spec(env, dtype, dims, options);
    Call::new(env, tag).run_on(id.0, move |device| {
        handle(Buffer::new(device.clone(), spec, &bytes))
    })
}

#[rustler::nif]
#[allow(clippy::too_many_arguments)] // they describe a new buffer
fn buffer_from_binary<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Binary<'a>,
    options: AllocOptions,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    let (data, progress) = (Data::keep(data), progress(watcher));
    Call::new(env, tag).run_on(id.0, move |device| {
        let device = device.clone();
        handle(data.read(|data| Buffer::new_with_progress(device, spec, data, progress.as_ref())))
    })
}

/// Makes a small buffer on the caller's scheduler; `nil` if that would block.
#[rustler::nif]
fn buffer_from_small<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
    options: AllocOptions,
) -> NifResult<'a, Option<Ref>> {
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let made = match data.decode::<Binary>() {
        Ok(data) => Buffer::try_from_bytes(&device, spec(env, dtype, dims, options), &data),
        // A list can have any length, whatever its shape.
        Err(_) if !list::has_at_most(data, MOST_CELLS) => None,
        Err(_) => {
            let bytes = list::decode(data, dtype.0, &dims)?;
            Buffer::try_from_bytes(&device, spec(env, dtype, dims, options), &bytes)
        }
    };
    Ok(made.map(|buffer| ResourceArc::new(BufferRef::new(buffer))))
}

/// `nil` if the device is not open yet.
#[rustler::nif]
fn buffer_empty<'a>(
    env: Env<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> NifResult<'a, Option<Ref>> {
    let Some(device) = registry::find_open(id.0) else {
        return Ok(None);
    };
    let buffer = Buffer::lazy(device, spec(env, dtype, dims, options))?;
    handle(Ok(buffer)).map(Some)
}

#[rustler::nif]
fn buffer_iota<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    Call::new(env, tag).run_on(id.0, move |device| {
        handle(Buffer::iota(device.clone(), spec))
    })
}

#[rustler::nif]
fn buffer_allocate<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref) -> Pending<'a> {
    on(Call::new(env, tag), buffer, |buffer| {
        buffer.ensure_allocated()?;
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn buffer_fill<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref, value: Term<'a>) -> Pending<'a> {
    let dtype = buffer.0.dtype();
    let bits = list::bits(value, dtype).ok_or_else(|| NifError::invalid_value(0, value, dtype))?;
    on(Call::new(env, tag), buffer, move |buffer| {
        buffer.fill(bits)?;
        Ok(atoms::ok())
    })
}

/// Starts a read on the calling worker thread of its device; the device's other thread waits for
/// it.
pub fn read(
    buffer: Ref,
    offset: u64,
    count: u64,
    progress: Option<Progress>,
    done: impl FnOnce(Result<OwnedBinary>) + Send + 'static,
) {
    let bytes = count.saturating_mul(buffer.0.dtype().size());
    let turn = {
        let worker = buffer.0.device().worker();
        worker.read_permit(bytes.min(buffer.0.bytes()))
    };
    let started = buffer.0.start_read(offset, count, progress.as_ref());
    wait(buffer, count, started, None, move |bytes| {
        done(bytes);
        drop(turn);
    });
}

fn wait(
    buffer: Ref,
    count: u64,
    started: Result<Option<Box<dyn PendingRead>>>,
    patience: Option<Duration>,
    done: impl FnOnce(Result<OwnedBinary>) + Send + 'static,
) {
    let pending = match started {
        Ok(pending) => pending,
        Err(error) => return done(Err(error)),
    };
    let device = buffer.0.device().clone();
    // If no thread can be started, `done` is dropped, which sends an error.
    let _ = device.worker().wait(move || {
        let bytes = finish_read(&buffer.0, count, pending, patience);
        drop(buffer);
        done(bytes);
    });
}

fn answer_read<'a>(
    call: Call,
    buffer: Ref,
    (offset, count): (u64, u64),
    progress: Option<Progress>,
) -> Pending<'a> {
    let device = buffer.0.device().clone();
    call.then(&device, move |call| {
        read(buffer, offset, count, progress, move |bytes| {
            call.answer_with(|env| Ok(Binary::from_owned(bytes?, env).to_term(env)));
        });
    })
}

#[rustler::nif]
fn buffer_read<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let part = (0, buffer.0.count());
    answer_read(Call::new(env, tag), buffer, part, progress(watcher))
}

#[rustler::nif]
fn buffer_read_part<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    offset: u64,
    count: u64,
) -> Pending<'a> {
    answer_read(Call::new(env, tag), buffer, (offset, count), None)
}

/// Queues the reads with no other call between them; each device then waits for its own.
#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_read_all<'a>(env: Env<'a>, tag: Reference<'a>, buffers: ListOf<Ref>) -> Pending<'a> {
    let call = Call::new(env, tag);
    let first = buffers.first().map(|buffer| buffer.0.device().clone());
    let is_on = |device: &Arc<Device>| buffers.iter().all(|it| Arc::ptr_eq(it.0.device(), device));
    match first.filter(is_on) {
        Some(device) => call.then(&device, |call| read_all(call, buffers.0)),
        None => {
            MULTI_DEVICE.run(|| read_all(call, buffers.0))?;
            Ok(atoms::pending())
        }
    }
}

fn read_all(call: Call, buffers: Vec<Ref>) {
    let all: Vec<&Buffer> = buffers.iter().map(|buffer| &buffer.0).collect();
    let started = match start_read_all(&all) {
        Ok(started) => started,
        Err(error) => return call.answer::<Atom>(Err(error.into())),
    };
    let done = |all: Vec<Result<OwnedBinary>>| {
        call.answer_with(|env| {
            let all = all.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
            let all: Vec<_> = all.map(|bytes| Binary::from_owned(bytes, env)).collect();
            Ok(all.encode(env))
        });
    };
    // If no thread can be started, `done` is dropped, which sends an error.
    let slots = gather(started.len(), done).unwrap_or_default();
    for ((buffer, pending), slot) in buffers.into_iter().zip(started).zip(slots) {
        let count = buffer.0.count();
        wait(buffer, count, Ok(pending), None, move |bytes| {
            slot.fill(bytes)
        });
    }
}

/// The elements as a list, or, for a long list, the bytes from which `buffer_list` makes it.
fn elements<'a>(
    env: Env<'a>,
    bytes: Result<OwnedBinary>,
    dtype: DType,
    dims: &[u64],
) -> NifResult<'a, Term<'a>> {
    let bytes = bytes?;
    if bytes.len() <= SHORT_LIST {
        list::encode(env, &bytes, dtype, dims)
    } else {
        Ok((atoms::bytes(), Binary::from_owned(bytes, env)).encode(env))
    }
}

#[rustler::nif]
fn buffer_elements<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref, dims: Dims) -> Pending<'a> {
    let (dtype, count) = (buffer.0.dtype(), buffer.0.count());
    let device = buffer.0.device().clone();
    Call::new(env, tag).then(&device, move |call| {
        read(buffer, 0, count, None, move |bytes| {
            call.answer_with(|env| elements(env, bytes, dtype, &dims));
        });
    })
}

/// The first elements, unless the device is too busy.
#[rustler::nif]
fn buffer_preview<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref, most: u64) -> Pending<'a> {
    let (count, dtype) = (buffer.0.count().min(most), buffer.0.dtype());
    let (device, deadline) = (buffer.0.device().clone(), Instant::now() + PREVIEW_PATIENCE);
    Call::new(env, tag).then(&device, move |call| {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return call.answer::<Atom>(Err(Error::Busy.into()));
        }
        let started = buffer.0.start_read_within(count, patience);
        wait(buffer, count, started, Some(patience), move |bytes| {
            call.answer_with(|env| elements(env, bytes, dtype, &[count]));
        });
    })
}

#[rustler::nif]
fn buffer_write<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    offset: u64,
    data: Binary<'a>,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let (data, progress) = (Data::keep(data), progress(watcher));
    on(Call::new(env, tag), buffer, move |buffer| {
        data.read(|data| buffer.write_with_progress(offset, data, progress.as_ref()))?;
        Ok(atoms::ok())
    })
}

#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_write_list<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    offset: u64,
    dims: Dims,
    data: Term<'a>,
) -> Pending<'a> {
    let bytes = list::decode(data, buffer.0.dtype(), &dims)?;
    on(Call::new(env, tag), buffer, move |buffer| {
        buffer.write(offset, &bytes)?;
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn buffer_view(buffer: Ref, offset: u64, count: u64) -> NifResult<'static, Ref> {
    handle(buffer.0.view(offset, count))
}

#[rustler::nif]
fn buffer_slice_bytes(buffer: Ref, offset: u64, len: u64) -> NifResult<'static, Ref> {
    handle(buffer.0.slice_bytes(offset, len))
}

#[rustler::nif]
fn buffer_clone(buffer: Ref) -> NifResult<'static, Ref> {
    handle(Ok(buffer.0.share()))
}

/// As `buffer_clone`, with a new identity.
#[rustler::nif]
fn buffer_detach(buffer: Ref) -> NifResult<'static, Ref> {
    handle(Ok(buffer.0.detach()))
}

#[rustler::nif]
fn buffer_duplicate<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    id: Wire<DeviceId>,
    dims: Dims,
    options: AllocOptions,
    watcher: Option<LocalPid>,
) -> Pending<'a> {
    let spec = spec(env, Wire(buffer.0.dtype()), dims, options);
    let progress = progress(watcher);
    Call::new(env, tag).opened(id.0, move |device, call| {
        if Arc::ptr_eq(&device, buffer.0.device()) {
            return call.queue(device.worker(), move |call| {
                call.answer(handle(buffer.0.duplicate_as(spec)));
            });
        }
        let copy = Box::new(Buffer::lazy(device, spec)?);
        copy_across(Held(buffer), copy, progress, move |copy| {
            call.answer(handle(copy.map(|copy| *copy)));
        })
    })
}

#[rustler::nif]
fn buffer_convert<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    buffer: Ref,
    dtype: Wire<DType>,
    dims: Dims,
    options: AllocOptions,
) -> Pending<'a> {
    let spec = spec(env, dtype, dims, options);
    on(Call::new(env, tag), buffer, move |buffer| {
        handle(buffer.convert(spec))
    })
}

#[rustler::nif]
fn buffer_copy<'a>(env: Env<'a>, tag: Reference<'a>, source: Ref, target: Ref) -> Pending<'a> {
    let call = Call::new(env, tag);
    if Arc::ptr_eq(source.0.device(), target.0.device()) {
        return on(call, source, move |source| {
            source.copy_to(&target.0)?;
            Ok(atoms::ok())
        });
    }
    copy_across(Held(source), Held(target), None, move |copied| {
        call.answer(copied.map(|_| atoms::ok()).map_err(NifError::from));
    })?;
    Ok(atoms::pending())
}

#[rustler::nif]
fn buffer_synchronize<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref) -> Pending<'a> {
    on(Call::new(env, tag), buffer, |buffer| {
        buffer.device().synchronize()?;
        Ok(atoms::ok())
    })
}

#[rustler::nif]
fn buffer_pointer<'a>(env: Env<'a>, tag: Reference<'a>, buffer: Ref) -> Pending<'a> {
    on(Call::new(env, tag), buffer, |buffer| Ok(buffer.pointer()?))
}

#[rustler::nif]
fn buffer_overlap(a: Ref, b: Ref) -> bool {
    a.0.overlaps(&b.0)
}

#[rustler::nif]
fn buffer_id(buffer: Ref) -> u64 {
    buffer.0.id()
}

#[rustler::nif]
fn buffer_storage_id(buffer: Ref) -> u64 {
    buffer.0.storage_id()
}

#[rustler::nif]
fn buffer_total_size(buffer: Ref) -> u64 {
    buffer.0.total_bytes()
}

#[rustler::nif]
fn buffer_allocated(buffer: Ref) -> bool {
    buffer.0.is_allocated()
}

#[rustler::nif]
fn buffer_ref_count(buffer: Ref) -> u64 {
    buffer.0.handles() as u64
}

/// The bytes of memory that the first write would allocate.
#[rustler::nif]
fn buffer_missing(buffer: Ref) -> u64 {
    if buffer.0.is_allocated() {
        0
    } else {
        buffer.0.total_bytes()
    }
}

/// The bytes of a list, without a buffer.
#[rustler::nif(schedule = "DirtyCpu")]
fn list_to_binary<'a>(
    env: Env<'a>,
    dtype: Wire<DType>,
    dims: Dims,
    data: Term<'a>,
) -> NifResult<'a, Binary<'a>> {
    let bytes = list::decode(data, dtype.0, &dims)?;
    Ok(Binary::from_owned(OwnedBinary::from_slice(&bytes), env))
}

/// Makes the list of bytes that were read from a buffer.
#[rustler::nif(schedule = "DirtyCpu")]
fn buffer_list<'a>(
    env: Env<'a>,
    buffer: Ref,
    data: Binary<'a>,
    dims: Dims,
) -> NifResult<'a, Term<'a>> {
    list::encode(env, &data, buffer.0.dtype(), &dims)
}

/// Makes the list of bytes that come from elsewhere than a buffer.
#[rustler::nif(schedule = "DirtyCpu")]
fn binary_to_list<'a>(
    env: Env<'a>,
    data: Binary<'a>,
    dtype: Wire<DType>,
    dims: Dims,
) -> NifResult<'a, Term<'a>> {
    list::encode(env, &data, dtype.0, &dims)
}
