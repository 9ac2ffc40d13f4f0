//! `ExCubecl.Pool`. A pool is looked up by the pid of its server process, so that a checkout sends
//! no message to that process.

mod shared;

use std::collections::HashMap;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};

use ex_cubecl_core::allocators::pool::{Pool, Stats};
use ex_cubecl_core::{DType, DeviceId, Result};
use parking_lot::RwLock;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Reference, Resource, ResourceArc, Term};

use crate::atoms;
use crate::call::{Call, Pending};
use crate::error::{NifError, NifResult, busy_to_nil};
use crate::notifier::notify;
use crate::pid;
use crate::resource::{BufferArg, demonitor_holder, lent};
use crate::term::{AllocOptions, Dims, Wire, map, spec};

/// A pool and, once it is set, its server process. The pool is closed when the process ends.
struct PoolRef {
    pool: Arc<Pool>,
    server: Arc<OnceLock<LocalPid>>,
}

#[rustler::resource_impl]
impl Resource for PoolRef {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if let Some(pools) = &mut *POOLS.write() {
            pools.remove(&pid::key(env, pid));
        }
        self.pool.close();
    }
}

// Core's locks do not poison, and each change under them is a single step.
impl UnwindSafe for PoolRef {}
impl RefUnwindSafe for PoolRef {}

static POOLS: RwLock<Option<HashMap<u64, ResourceArc<PoolRef>>>> = RwLock::new(None);

fn find<'a>(env: Env<'_>, pid: LocalPid) -> NifResult<'a, Arc<Pool>> {
    let pools = POOLS.read();
    let found = pools
        .as_ref()
        .and_then(|pools| pools.get(&pid::key(env, pid)));
    Ok(found.ok_or_else(NifError::pool_closed)?.pool.clone())
}

/// Makes a pool that has no server process yet.
#[rustler::nif]
fn pool_new<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    id: Wire<DeviceId>,
    dtype: Wire<DType>,
    dims: Dims,
    max: u64,
    options: AllocOptions,
) -> Pending<'a> {
    let server = Arc::new(OnceLock::new());
    let notified = server.clone();
    let waker = Box::new(move || {
        if let Some(pid) = notified.get() {
            notify(*pid, |env| atoms::returned().to_term(env));
        }
    });
    let spec = spec(env, dtype, dims, options);
    Call::new(env, tag).run_on(id.0, move |device| {
        let pool = Pool::new(device.clone(), spec, max, Some(waker))?;
        Ok(ResourceArc::new(PoolRef { pool, server }))
    })
}

/// Makes the calling process the server of the pool: the pool is found by its pid, and ends with
/// it.
#[rustler::nif]
fn pool_set_server(env: Env<'_>, pool: ResourceArc<PoolRef>) -> NifResult<'static, Atom> {
    let pid = env.pid();
    if pool.server.set(pid).is_err() || pool.monitor(Some(env), &pid).is_none() {
        return Err(NifError::pool_closed());
    }
    let mut pools = POOLS.write();
    pools
        .get_or_insert_default()
        .insert(pid::key(env, pid), pool.clone());
    Ok(atoms::ok())
}

/// Checks out an idle buffer, or returns `{allocate, device, bytes}`.
#[rustler::nif]
fn pool_try_checkout<'a>(
    env: Env<'a>,
    pid: LocalPid,
    options: AllocOptions,
) -> NifResult<'a, Term<'a>> {
    let pool = find(env, pid)?;
    match pool.take(&options.label(pid::caller(env)))? {
        Some(buffer) => {
            let handle = lent(Some(env), buffer, env.pid());
            Ok(encode_fields(env, &pool, handle))
        }
        None => {
            let bytes = pool.spec().bytes().unwrap_or(0);
            let growth = (atoms::allocate(), Wire(pool.device().id()), bytes);
            Ok(growth.encode(env))
        }
    }
}

/// Checks out an idle or a new buffer for `holder`.
#[rustler::nif]
fn pool_checkout<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    pid: LocalPid,
    holder: LocalPid,
    options: AllocOptions,
) -> Pending<'a> {
    let pool = find(env, pid)?;
    let label = options.label(pid::key(env, holder));
    let device = pool.device().clone();
    Call::new(env, tag).continue_on(&device, move |call| {
        let buffer = pool.check_out(&label);
        call.reply_with(|env| Ok(encode_fields(env, &pool, lent(None, buffer?, holder))));
    })
}

/// The fields of `%ExCubecl.Buffer{}`.
fn encode_fields<'a>(env: Env<'a>, pool: &Pool, handle: BufferArg) -> Term<'a> {
    let spec = pool.spec();
    map(
        env,
        &[
            (atoms::r#ref(), &handle),
            (atoms::dtype(), &Wire(spec.dtype)),
            (atoms::shape(), &spec.shape.to_vec()),
            (atoms::device(), &Wire(pool.device().id())),
        ],
    )
}

#[rustler::nif]
fn pool_try_checkin(
    env: Env<'_>,
    pid: LocalPid,
    buffer: BufferArg,
) -> NifResult<'static, Option<Atom>> {
    let result = find(env, pid)?.check_in(&buffer, false);
    checked_in(Some(env), &buffer, result)
}

#[rustler::nif]
fn pool_checkin<'a>(
    env: Env<'a>,
    tag: Reference<'a>,
    pid: LocalPid,
    buffer: BufferArg,
) -> Pending<'a> {
    let pool = find(env, pid)?;
    let device = buffer.device().clone();
    Call::new(env, tag).run(&device, move || {
        let result = pool.check_in(&buffer, true);
        checked_in(None, &buffer, result)
    })
}

/// The result of a checkin: `nil` if it would block. The holder of a buffer that was checked in is no longer monitored.
fn checked_in(
    env: Option<Env<'_>>,
    buffer: &BufferArg,
    result: Result<()>,
) -> NifResult<'static, Option<Atom>> {
    Ok(busy_to_nil(result)?.map(|()| {
        demonitor_holder(env, buffer);
        atoms::ok()
    }))
}

/// Sets how many processes wait for a buffer.
#[rustler::nif]
fn pool_set_waiting(env: Env<'_>, pid: LocalPid, waiting: u64) -> NifResult<'static, Atom> {
    find(env, pid)?.set_waiting(waiting);
    Ok(atoms::ok())
}

#[rustler::nif]
fn pool_count_wait(env: Env<'_>, pid: LocalPid) -> NifResult<'static, Atom> {
    find(env, pid)?.count_wait();
    Ok(atoms::ok())
}

#[rustler::nif]
fn pool_stats(env: Env<'_>, pid: LocalPid) -> NifResult<'static, Wire<Stats>> {
    Ok(Wire(find(env, pid)?.stats()))
}
