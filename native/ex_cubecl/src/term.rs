//! Small values on their way through the seam: dtypes, device ids, descriptions, statistics.

use ex_cubecl_core::device::{Hardware, Info, Runtime};
use ex_cubecl_core::meter::Usage;
use ex_cubecl_core::{DType, DeviceId};
use rustler::{Atom, Decoder, Encoder, Env, Error, NifResult, Term};

use crate::atoms;

/// A core value in the shape that Elixir knows.
pub struct Wire<T>(pub T);

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
                (atoms::adapter(), &info.adapter),
            ],
        )
    }
}

/// What the account says, and the bytes that the runtime holds.
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
                (atoms::limit(), &usage.limit),
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

/// `Encoder` without its generic lifetime parameters, so that values of different types fit one
/// table.
pub trait DynEncoder {
    fn term<'a>(&self, env: Env<'a>) -> Term<'a>;
}

impl<T: Encoder> DynEncoder for T {
    fn term<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.encode(env)
    }
}
