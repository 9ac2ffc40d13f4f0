//! A kernel written in WGSL, and the interface that its parser found.

use crate::error::{Error, Result};

/// A WGSL source that passed its checks.
#[derive(Debug, Clone)]
pub struct Source {
    pub text: String,
    pub entry: String,
    pub interface: Interface,
}

/// The interface that a source declares.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Whether each buffer is written, in the order of the bindings.
    pub writes: Vec<bool>,
    /// The workgroup size.
    pub threads: [u32; 3],
    /// Bytes of the private variables of each thread.
    pub variables: u64,
    /// Bytes of workgroup memory.
    pub shared: u64,
}

impl Source {
    /// A source with the interface that its parser found. `threads` is the workgroup size that the caller
    /// expects, if any.
    pub fn new(
        text: String,
        entry: String,
        threads: Option<[u32; 3]>,
        interface: Interface,
    ) -> Result<Source> {
        let found = interface.threads;
        match threads {
            Some(threads) if threads != found => Err(Error::bad_kernel(format!(
                "the workgroup of {entry} is {found:?} in the source, not {threads:?}"
            ))),
            _ => Ok(Source {
                text,
                entry,
                interface,
            }),
        }
    }
}
