//! Conversion between lists and bytes, without a buffer.

use ex_cubecl_core::DType;
use rustler::{Binary, Env, OwnedBinary, Term};

use crate::error::NifResult;
use crate::list;
use crate::term::{Dims, Wire};

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

#[rustler::nif(schedule = "DirtyCpu")]
fn binary_to_list<'a>(
    env: Env<'a>,
    data: Binary<'a>,
    dtype: Wire<DType>,
    dims: Dims,
) -> NifResult<'a, Term<'a>> {
    list::encode(env, &data, dtype.0, &dims)
}
