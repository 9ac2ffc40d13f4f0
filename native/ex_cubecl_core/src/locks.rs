//! The storage locks of several buffers at once. They are taken in the order of the storages' ids, each
//! once, so that two calls cannot deadlock.

use std::collections::BTreeMap;

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::storage::{Content, Storage};

enum Lock<'a> {
    Read(RwLockReadGuard<'a, Content>),
    Write(RwLockWriteGuard<'a, Content>),
}

pub(crate) struct Locks<'a>(BTreeMap<u64, Lock<'a>>);

impl<'a> Locks<'a> {
    /// Locks the storages of buffers, each given with whether it is written.
    pub fn lock(buffers: impl Iterator<Item = (&'a Buffer, bool)>) -> Self {
        let take = |(storage, written): (&'a Storage, bool)| {
            if written {
                Lock::Write(storage.write())
            } else {
                Lock::Read(storage.read())
            }
        };
        let storages = storages(buffers).into_iter();
        Locks(storages.map(|(id, known)| (id, take(known))).collect())
    }

    /// As `lock`, without blocking: returns `None` if another call holds one of the locks.
    pub fn try_lock(buffers: impl Iterator<Item = (&'a Buffer, bool)>) -> Option<Self> {
        let take = |(storage, written): (&'a Storage, bool)| {
            if written {
                storage.try_write().map(Lock::Write)
            } else {
                storage.try_read().map(Lock::Read)
            }
        };
        let storages = storages(buffers).into_iter();
        let locks = storages.map(|(id, known)| Some((id, take(known)?)));
        locks.collect::<Option<_>>().map(Locks)
    }

    pub fn content(&self, buffer: &Buffer) -> Result<&Content> {
        match self.0.get(&buffer.storage().id) {
            Some(Lock::Read(content)) => Ok(content),
            Some(Lock::Write(content)) => Ok(content),
            None => Err(Error::NotAllocated),
        }
    }

    /// Checks the buffers of a call that writes nothing: its inputs must be readable, and none may be stale.
    pub fn check(&self, buffers: impl Iterator<Item = (&'a Buffer, bool)>) -> Result<()> {
        for (buffer, written) in buffers {
            match buffer.source(self.content(buffer)?) {
                Err(Error::NotAllocated) if written => {}
                other => other.map(|_| ())?,
            }
        }
        Ok(())
    }

    /// The content of a buffer that was locked for writing.
    pub fn content_mut(&mut self, buffer: &Buffer) -> Option<&mut Content> {
        match self.0.get_mut(&buffer.storage().id) {
            Some(Lock::Write(content)) => Some(content),
            _ => None,
        }
    }
}

fn storages<'a>(
    buffers: impl Iterator<Item = (&'a Buffer, bool)>,
) -> BTreeMap<u64, (&'a Storage, bool)> {
    let mut storages = BTreeMap::new();
    for (buffer, written) in buffers {
        let storage = &**buffer.storage();
        let known = storages.entry(storage.id).or_insert((storage, false));
        known.1 |= written;
    }
    storages
}
