//! What all kinds of values share: the wrapper of a value of core, lists, shapes and maps.

use rustler::{Atom, Decoder, Encoder, Env, Error, NifResult, Term};

use crate::list_cell;

/// A value of core that is encoded or decoded: the traits are rustler's and the types core's, so that a type of this
/// crate has to be between them.
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
        if dims.len() > MAX_AXES {
            return Err(Error::BadArg);
        }
        Ok(Dims(dims))
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
        if rest.is_empty_list() {
            Ok(ListOf(items))
        } else {
            Err(Error::BadArg)
        }
    }
}

/// A list argument that is decoded if it has at most `MAX_SHORT` elements; `None` for a longer one, which takes too long on
/// a normal scheduler.
pub struct ShortListOf<T>(pub Option<Vec<T>>);

const MAX_SHORT: u64 = 32;

impl<'a, T: Decoder<'a>> Decoder<'a> for ShortListOf<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if !list_cell::has_at_most(term, MAX_SHORT) {
            return Ok(ShortListOf(None));
        }
        let items = term.decode::<ListOf<T>>()?;
        Ok(ShortListOf(Some(items.0)))
    }
}

/// A list of values of core.
pub fn encode_all<'a, T: Copy>(env: Env<'a>, values: &[T]) -> Term<'a>
where
    Wire<T>: Encoder,
{
    let values: Vec<Wire<T>> = values.iter().copied().map(Wire).collect();
    values.encode(env)
}

/// The atom with this name, which is ASCII: rustler would copy a UTF-8 name first.
pub fn atom<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    match Atom::from_bytes(env, name.as_bytes()) {
        Ok(atom) => atom.to_term(env),
        Err(_) => name.encode(env),
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
