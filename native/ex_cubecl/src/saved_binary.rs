//! Binaries that a thread of the library uses after the NIF has returned.

use ex_cubecl_core::{Error, Result};
use rustler::env::SavedTerm;
use rustler::{Binary, OwnedEnv};

/// The bytes of a binary, kept without copying until a thread of the library is done with them.
pub struct SavedBinary {
    env: OwnedEnv,
    binary: SavedTerm,
}

impl SavedBinary {
    pub fn new(binary: Binary<'_>) -> SavedBinary {
        let env = OwnedEnv::new();
        let binary = env.save(binary);
        SavedBinary { env, binary }
    }

    pub fn read<T>(&self, with: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        self.env
            .run(|env| match self.binary.load(env).decode::<Binary>() {
                Ok(binary) => with(&binary),
                Err(_) => Err(Error::driver("the data of a call was lost")),
            })
    }
}
