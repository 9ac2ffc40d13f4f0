//! Operations on matrices in host memory, and what comes of them.

use ex_cubecl_core::linear::{Operation, Outcome, Problem};
use rustler::{Binary, Decoder, Encoder, Env, Error, NifResult, OwnedBinary, Term};

use crate::atoms;
use crate::term::Wire;

/// A name, or a tuple of a name and a boolean for each of its options.
impl<'a> Decoder<'a> for Wire<Operation> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok((name, complete)) = term.decode::<(Term, bool)>() {
            return match name.atom_to_string()?.as_str() {
                "qr" => Ok(Wire(Operation::Qr { complete })),
                "svd" => Ok(Wire(Operation::Svd { complete })),
                _ => Err(Error::BadArg),
            };
        }
        if let Ok((name, lower, transpose, left)) = term.decode::<(Term, bool, bool, bool)>() {
            return match name.atom_to_string()?.as_str() {
                "triangular" => Ok(Wire(Operation::Triangular {
                    lower,
                    transpose,
                    left,
                })),
                _ => Err(Error::BadArg),
            };
        }
        let operation = match term.atom_to_string()?.as_str() {
            "lu" => Operation::Lu,
            "cholesky" => Operation::Cholesky,
            "eigh" => Operation::Eigh,
            "singular_values" => Operation::SingularValues,
            "solve" => Operation::Solve,
            "inverse" => Operation::Inverse,
            "determinant" => Operation::Determinant,
            _ => return Err(Error::BadArg),
        };
        Ok(Wire(operation))
    }
}

/// `{count, results}`, or `{:found, problem, index}`.
impl Encoder for Wire<Outcome> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match &self.0 {
            Outcome::Done(count, results) => {
                let binary = |bytes: &Vec<u8>| {
                    Binary::from_owned(OwnedBinary::from_slice(bytes), env).to_term(env)
                };
                let results: Vec<Term> = results.iter().map(binary).collect();
                (count, results).encode(env)
            }
            Outcome::Found(problem, index) => (atoms::found(), Wire(*problem), index).encode(env),
        }
    }
}

impl Encoder for Wire<Problem> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self.0 {
            Problem::NotFinite(operand) => (atoms::not_finite(), operand).encode(env),
            Problem::Overflow => atoms::overflow().to_term(env),
            Problem::Zero(pivot) => (atoms::zero(), pivot).encode(env),
            Problem::NotPositive(pivot, value) => (atoms::not_positive(), pivot, value).encode(env),
            Problem::NoConvergence => atoms::no_convergence().to_term(env),
        }
    }
}
