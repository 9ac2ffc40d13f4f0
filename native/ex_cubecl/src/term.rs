//! Decodes and encodes small values: dtypes, device ids, specs, statistics.

use std::sync::Arc;

use ex_cubecl_core::allocators::pool::Stats;
use ex_cubecl_core::device_id::Runtime;
use ex_cubecl_core::driver::{Hardware, Info};
use ex_cubecl_core::memory::allocation_tracker::{Entry, Report, Sum};
use ex_cubecl_core::memory::heap::{PageInfo, Use};
use ex_cubecl_core::memory::meter::Usage;
use ex_cubecl_core::{DType, DeviceId, Label, Spec};
use rustler::{Atom, Binary, Decoder, Encoder, Env, Error, NifResult, Term};

use crate::atoms;
use crate::pid;

/// A core value that is encoded and decoded as Elixir's terms.
pub struct Wire<T>(pub T);

/// A list argument. Rustler's own list decoder panics on an improper list.
pub struct ListOf<T>(pub Vec<T>);

/// The largest number of axes of a shape: lists nested as deep are encoded and decoded by recursive
/// functions, on the small stack of a dirty scheduler.
const MAX_AXES: usize = 64;

/// The lengths of a shape's axes.
pub struct Dims(pub Vec<u64>);

impl std::ops::Deref for Dims {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl<'a> Decoder<'a> for Dims {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let dims = term.decode::<ListOf<u64>>()?.0;
        match dims.len() <= MAX_AXES {
            true => Ok(Dims(dims)),
            false => Err(Error::BadArg),
        }
    }
}

impl<T> std::ops::Deref for ListOf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T: Decoder<'a>> Decoder<'a> for ListOf<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let mut items = Vec::new();
        let mut rest = term;
        while let Ok((head, tail)) = rest.list_get_cell() {
            items.push(head.decode()?);
            rest = tail;
        }
        match rest.is_empty_list() {
            true => Ok(ListOf(items)),
            false => Err(Error::BadArg),
        }
    }
}

fn atom<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    match Atom::from_str(env, name) {
        Ok(atom) => atom.to_term(env),
        Err(_) => name.encode(env),
    }
}

impl<'a> Decoder<'a> for Wire<DType> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let name = term.atom_to_string()?;
        DType::all()
            .find(|dtype| dtype.name() == name)
            .map(Wire)
            .ok_or(Error::BadArg)
    }
}

impl Encoder for Wire<DType> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        atom(env, self.0.name())
    }
}

impl<'a> Decoder<'a> for Wire<DeviceId> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (runtime, index) = term.decode::<(Term, u32)>()?;
        let name = runtime.atom_to_string()?;
        let found = Runtime::ALL
            .into_iter()
            .find(|runtime| runtime.name() == name);
        let runtime = found.ok_or(Error::BadArg)?;
        Ok(Wire(DeviceId { runtime, index }))
    }
}

impl Encoder for Wire<DeviceId> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (atom(env, self.0.runtime.name()), self.0.index).encode(env)
    }
}

impl Encoder for Wire<Hardware> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let atom = match self.0 {
            Hardware::DiscreteGpu => atoms::discrete_gpu(),
            Hardware::IntegratedGpu => atoms::integrated_gpu(),
            Hardware::VirtualGpu => atoms::virtual_gpu(),
            Hardware::Cpu => atoms::cpu(),
            Hardware::Other => atoms::other(),
        };
        atom.to_term(env)
    }
}

impl Encoder for Wire<Info> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let info = &self.0;
        let dtypes: Vec<Wire<DType>> = info.dtypes.iter().copied().map(Wire).collect();
        map(
            env,
            &[
                (atoms::id(), &Wire(info.id)),
                (atoms::name(), &info.name),
                (atoms::kind(), &Wire(info.hardware)),
                (atoms::driver(), &info.driver),
                (atoms::max_buffer_size(), &info.max_buffer),
                (atoms::total_memory(), &info.total_memory),
                (atoms::dtypes(), &dtypes),
                (atoms::adapter(), &Wire(info.card)),
            ],
        )
    }
}

/// The usage of a device, and the bytes that its runtime holds.
impl Encoder for Wire<(Usage, u64)> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let (usage, reserved) = &self.0;
        map(
            env,
            &[
                (atoms::live_bytes(), &usage.live_bytes),
                (atoms::live_buffers(), &usage.live_buffers),
                (atoms::peak_bytes(), &usage.peak_bytes),
                (atoms::reserved_bytes(), reserved),
                (atoms::allocations(), &usage.allocations),
                (atoms::frees(), &usage.frees),
                (atoms::failed(), &usage.failed),
                (atoms::reclaims(), &usage.reclaims),
                (atoms::limit(), &usage.limit),
            ],
        )
    }
}

/// The options of a creating call beyond type and shape: `nil`, or a tag, a stacktrace and whether the
/// buffer is long-lived. Tag and stacktrace are terms in the external term format.
#[derive(Default)]
pub struct Note {
    tag: Option<Arc<[u8]>>,
    trace: Option<Arc<[u8]>>,
    persistent: bool,
}

impl<'a> Decoder<'a> for Note {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if rustler::types::atom::nil() == term {
            return Ok(Note::default());
        }
        let (tag, trace, persistent) = term.decode::<(Option<Binary>, Option<Binary>, bool)>()?;
        let keep = |bytes: Option<Binary>| bytes.map(|bytes| Arc::from(bytes.as_slice()));
        Ok(Note {
            tag: keep(tag),
            trace: keep(trace),
            persistent,
        })
    }
}

impl Note {
    /// The label of a buffer that process `owner` makes with this note.
    pub fn label(self, owner: u64) -> Label {
        Label {
            owner,
            tag: self.tag,
            trace: self.trace,
        }
    }
}

/// The spec of a buffer that the calling process makes.
pub fn spec(env: Env<'_>, dtype: Wire<DType>, dims: Dims, note: Note) -> Spec {
    Spec {
        dtype: dtype.0,
        shape: dims.0.into(),
        persistent: note.persistent,
        label: note.label(pid::caller(env)),
    }
}

/// A term in the external term format.
struct External<'b>(&'b [u8]);

impl Encoder for External<'_> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match env.binary_to_term(self.0) {
            Some((term, _)) => term,
            None => rustler::types::atom::nil().to_term(env),
        }
    }
}

impl Encoder for Wire<Entry> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let Wire(Entry {
            id,
            device,
            bytes,
            spec,
            since,
            place,
        }) = self;
        let (tag, trace) = (spec.label.tag.as_deref(), spec.label.trace.as_deref());
        map(
            env,
            &[
                (atoms::storage_id(), id),
                (atoms::device(), &Wire(*device)),
                (atoms::bytes(), bytes),
                (atoms::dtype(), &Wire(spec.dtype)),
                (atoms::shape(), &spec.shape.to_vec()),
                (atoms::owner(), &pid::term(env, spec.label.owner)),
                (atoms::tag(), &tag.map(External)),
                (atoms::age_ms(), &(since.elapsed().as_millis() as u64)),
                (atoms::stacktrace(), &trace.map(External)),
                (atoms::page(), &place.map(|place| place.page)),
                (atoms::offset(), &place.map(|place| place.offset)),
            ],
        )
    }
}

impl Encoder for Wire<PageInfo> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let kind = match self.0.kind {
            Use::Slab => atoms::slab(),
            Use::Own => atoms::own(),
            Use::Idle => atoms::idle(),
        };
        map(
            env,
            &[
                (atoms::page(), &self.0.page),
                (atoms::bytes(), &self.0.bytes),
                (atoms::used(), &self.0.used),
                (atoms::kind(), &kind),
            ],
        )
    }
}

impl Encoder for Wire<Report> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let sum = |sum: &Sum| -> Term<'a> {
            map(
                env,
                &[
                    (atoms::bytes(), &sum.bytes),
                    (atoms::buffers(), &sum.buffers),
                ],
            )
        };
        let report = &self.0;
        let largest: Vec<_> = report.largest.iter().cloned().map(Wire).collect();
        let owners = report.by_owner.iter();
        let owners: Vec<_> = owners
            .map(|(owner, bytes)| (pid::term(env, *owner), sum(bytes)))
            .collect();
        let tags = report.by_tag.iter();
        let tags: Vec<_> = tags
            .map(|(tag, bytes)| (tag.as_deref().map(External), sum(bytes)))
            .collect();
        map(
            env,
            &[
                (atoms::largest(), &largest),
                (atoms::by_owner(), &owners),
                (atoms::by_tag(), &tags),
            ],
        )
    }
}

impl Encoder for Wire<Stats> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let stats = &self.0;
        map(
            env,
            &[
                (atoms::available(), &stats.available),
                (atoms::allocated(), &stats.allocated),
                (atoms::max(), &stats.max),
                (atoms::hits(), &stats.hits),
                (atoms::misses(), &stats.misses),
                (atoms::waits(), &stats.waits),
            ],
        )
    }
}

/// A map with atom keys.
pub fn map<'a>(env: Env<'a>, pairs: &[(Atom, &dyn DynEncoder)]) -> Term<'a> {
    let (keys, values): (Vec<Term>, Vec<Term>) = pairs
        .iter()
        .map(|(key, value)| (key.to_term(env), value.term(env)))
        .unzip();
    Term::map_from_term_arrays(env, &keys, &values).unwrap_or_else(|_| Term::map_new(env))
}

/// An object-safe `Encoder`, so that one table can hold values of different types.
pub trait DynEncoder {
    fn term<'a>(&self, env: Env<'a>) -> Term<'a>;
}

impl<T: Encoder> DynEncoder for T {
    fn term<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.encode(env)
    }
}
