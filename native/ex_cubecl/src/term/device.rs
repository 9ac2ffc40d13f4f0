//! Element types, device ids, and the properties of a device.

use ex_cubecl_core::device_id::Runtime;
use ex_cubecl_core::driver::{Hardware, Info};
use ex_cubecl_core::{DType, DeviceId};
use rustler::{Atom, Decoder, Encoder, Env, Error, NifResult, Term};

use crate::atoms;
use crate::term::wire::{Wire, encode_all, map};

fn dtype_atom(dtype: DType) -> Atom {
    match dtype {
        DType::F16 => atoms::f16(),
        DType::Bf16 => atoms::bf16(),
        DType::F32 => atoms::f32(),
        DType::F64 => atoms::f64(),
        DType::S8 => atoms::s8(),
        DType::S16 => atoms::s16(),
        DType::S32 => atoms::s32(),
        DType::S64 => atoms::s64(),
        DType::U8 => atoms::u8(),
        DType::U16 => atoms::u16(),
        DType::U32 => atoms::u32(),
        DType::U64 => atoms::u64(),
    }
}

fn runtime_atom(runtime: Runtime) -> Atom {
    match runtime {
        Runtime::Vulkan => atoms::vulkan(),
        Runtime::Metal => atoms::metal(),
        Runtime::Dx12 => atoms::dx12(),
        Runtime::Cuda => atoms::cuda(),
    }
}

impl<'a> Decoder<'a> for Wire<DType> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let mut all = DType::all();
        let found = all.find(|dtype| dtype_atom(*dtype) == term);
        found.map(Wire).ok_or(Error::BadArg)
    }
}

impl Encoder for Wire<DType> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        dtype_atom(self.0).to_term(env)
    }
}

impl<'a> Decoder<'a> for Wire<DeviceId> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (name, index) = term.decode::<(Term, u32)>()?;
        let mut all = Runtime::ALL.into_iter();
        let found = all.find(|runtime| runtime_atom(*runtime) == name);
        let runtime = found.ok_or(Error::BadArg)?;
        Ok(Wire(DeviceId { runtime, index }))
    }
}

impl Encoder for Wire<DeviceId> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (runtime_atom(self.0.runtime), self.0.index).encode(env)
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
        map(
            env,
            &[
                (atoms::id(), &Wire(info.id)),
                (atoms::name(), &info.name),
                (atoms::kind(), &Wire(info.hardware)),
                (atoms::driver(), &info.driver),
                (atoms::max_buffer_size(), &info.max_buffer),
                (atoms::max_buffers(), &info.max_buffers),
                (atoms::total_memory(), &info.total_memory),
                (atoms::dtypes(), &encode_all(env, &info.dtypes)),
                (atoms::adapter(), &Wire(info.adapter)),
            ],
        )
    }
}
