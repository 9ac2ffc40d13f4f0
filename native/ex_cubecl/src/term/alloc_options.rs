//! The options of a call that makes a buffer.

use std::sync::Arc;

use ex_cubecl_core::{DType, Label, Spec};
use rustler::{Binary, Decoder, Env, NifResult, Term};

use crate::pid;
use crate::term::wire::{Dims, Wire};

/// `nil`, or a tag, a stacktrace and whether the buffer is long-lived, as from `ExCubecl.Buffer.AllocOptions`. Tag and
/// stacktrace are terms in the external term format.
#[derive(Default)]
pub struct AllocOptions {
    tag: Option<Arc<[u8]>>,
    trace: Option<Arc<[u8]>>,
    persistent: bool,
}

impl<'a> Decoder<'a> for AllocOptions {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if rustler::types::atom::nil() == term {
            return Ok(AllocOptions::default());
        }
        let (tag, trace, persistent) = term.decode::<(Option<Binary>, Option<Binary>, bool)>()?;
        let keep = |bytes: Option<Binary>| bytes.map(|bytes| Arc::from(bytes.as_slice()));
        Ok(AllocOptions {
            tag: keep(tag),
            trace: keep(trace),
            persistent,
        })
    }
}

impl AllocOptions {
    /// The label of a buffer that process `owner` makes with these options.
    pub fn label(self, owner: u64) -> Label {
        Label {
            owner,
            tag: self.tag,
            trace: self.trace,
        }
    }
}

/// The spec of a buffer that the calling process makes.
pub fn spec(env: Env<'_>, dtype: Wire<DType>, dims: Dims, options: AllocOptions) -> Spec {
    Spec {
        dtype: dtype.0,
        shape: dims.0.into(),
        persistent: options.persistent,
        label: options.label(pid::caller(env)),
    }
}
