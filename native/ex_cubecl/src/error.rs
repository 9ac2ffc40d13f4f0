//! Errors as `{reason, details}`: an atom to match on and a map. Elixir writes the messages.

use ex_cubecl_core::error::details::{Details, Value};
use ex_cubecl_core::{DType, DeviceId, Error};
use rustler::{Encoder, Env, Term};

use crate::term::{Wire, atom, encode_all};

/// The return type of a NIF. `Err` becomes `{:error, {reason, details}}`.
pub type NifResult<'a, T> = Result<T, NifError<'a>>;

/// An error of core, or an error in a term that core does not see.
pub struct NifError<'a> {
    reason: &'static str,
    details: Vec<(&'static str, Detail<'a>)>,
}

enum Detail<'a> {
    Value(Value),
    Shape(Vec<u64>),
    Term(Term<'a>),
}

impl From<Error> for NifError<'_> {
    fn from(error: Error) -> Self {
        NifError::new(error.reason(), error.details())
    }
}

/// Turns `Busy` into `None`, which becomes `nil`: the call would have blocked.
pub fn busy_to_nil<'a, T>(result: ex_cubecl_core::Result<T>) -> NifResult<'a, Option<T>> {
    match result {
        Err(Error::Busy) => Ok(None),
        other => Ok(Some(other?)),
    }
}

impl<'a> NifError<'a> {
    fn new(reason: &'static str, details: Details) -> Self {
        let details = details.into_iter();
        let details = details.map(|(key, value)| (key, Detail::Value(value)));
        NifError {
            reason,
            details: details.collect(),
        }
    }

    fn with(mut self, key: &'static str, detail: Detail<'a>) -> Self {
        self.details.push((key, detail));
        self
    }

    /// An element that its type cannot represent.
    pub fn invalid_value(index: u64, value: Term<'a>, dtype: DType) -> Self {
        let details = vec![
            ("index", Value::from(&index)),
            ("dtype", Value::from(&dtype)),
        ];
        NifError::new("invalid_value", details).with("value", Detail::Term(value))
    }

    /// A flat list of the wrong length.
    pub fn list_length(expected: u64, actual: u64, shape: &[u64]) -> Self {
        let details = vec![
            ("expected", Value::Number(expected)),
            ("actual", Value::Number(actual)),
        ];
        NifError::new("shape_mismatch", details).with("shape", Detail::Shape(shape.to_vec()))
    }

    /// A row of the wrong length at this depth of a nested list.
    pub fn row_length(depth: u64, expected: u64, actual: u64, shape: &[u64]) -> Self {
        let depth = Detail::Value(Value::Number(depth));
        NifError::list_length(expected, actual, shape).with("depth", depth)
    }

    /// A term that is not a list where a row of a nested list is expected.
    pub fn not_a_row(depth: u64, expected: u64, value: Term<'a>, shape: &[u64]) -> Self {
        let details = vec![
            ("depth", Value::Number(depth)),
            ("expected", Value::Number(expected)),
        ];
        NifError::new("shape_mismatch", details)
            .with("value", Detail::Term(value))
            .with("shape", Detail::Shape(shape.to_vec()))
    }

    /// A list that would not fit into memory.
    pub fn list_too_long(requested: u64, limit: u64) -> Self {
        let details = vec![
            ("requested", Value::Number(requested)),
            ("limit", Value::Number(limit)),
        ];
        NifError::new("too_large", details)
    }

    pub fn improper_list() -> Self {
        NifError::invalid_argument("data", "improper_list")
    }

    pub fn invalid_argument(argument: &'static str, reason: &'static str) -> Self {
        let details = vec![
            ("argument", Value::Name(argument)),
            ("reason", Value::Name(reason)),
        ];
        NifError::new("invalid_argument", details)
    }

    /// A pool whose process has ended.
    pub fn pool_closed() -> Self {
        NifError::new("stale", vec![("reason", Value::Name("closed"))])
    }

    /// The error, with `device` as the one of several devices on which it occurred.
    pub fn on_device(mut self, device: DeviceId) -> Self {
        self.details.retain(|(key, _)| *key != "device");
        self.with("device", Detail::Value(Value::Device(device)))
    }

    /// The reason as an atom, and the details as a map.
    pub fn encode_parts<'b>(&self, env: Env<'b>) -> (Term<'b>, Term<'b>) {
        let details = self.details.iter();
        let details = encode_map(env, details.map(|(key, detail)| (*key, detail.encode(env))));
        (atom(env, self.reason), details)
    }
}

impl Encoder for NifError<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        self.encode_parts(env).encode(env)
    }
}

impl Encoder for Detail<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match self {
            Detail::Value(value) => encode_value(env, value),
            Detail::Shape(lengths) => lengths.encode(env),
            Detail::Term(term) => term.encode(env),
        }
    }
}

fn encode_value<'a>(env: Env<'a>, value: &Value) -> Term<'a> {
    match value {
        Value::Number(number) => number.encode(env),
        Value::Optional(number) => number.encode(env),
        Value::Text(text) => text.encode(env),
        Value::Name(name) => atom(env, name),
        Value::DType(dtype) => Wire(*dtype).encode(env),
        Value::DTypes(dtypes) => encode_all(env, dtypes),
        Value::Device(id) => Wire(*id).encode(env),
        Value::Devices(ids) => encode_all(env, ids),
        Value::Map(details) => {
            let details = details.iter();
            encode_map(
                env,
                details.map(|(key, value)| (*key, encode_value(env, value))),
            )
        }
    }
}

fn encode_map<'a>(env: Env<'a>, pairs: impl Iterator<Item = (&'static str, Term<'a>)>) -> Term<'a> {
    let (keys, values): (Vec<Term>, Vec<Term>) =
        pairs.map(|(key, value)| (atom(env, key), value)).unzip();
    Term::map_from_term_arrays(env, &keys, &values).unwrap_or_else(|_| Term::map_new(env))
}
