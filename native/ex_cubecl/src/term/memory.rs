//! Statistics of memory.

use ex_cubecl_core::allocators::pool::Stats;
use ex_cubecl_core::memory::allocation_tracker::{Record, Report, Sum};
use ex_cubecl_core::memory::heap::{PageInfo, Use};
use ex_cubecl_core::memory::meter::Usage;
use rustler::{Encoder, Env, Term};

use crate::atoms;
use crate::pid;
use crate::term::wire::{Wire, map};

/// The usage of a device, and the bytes that its runtime holds.
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
                (atoms::reclaims(), &usage.reclaims),
                (atoms::limit(), &usage.limit),
            ],
        )
    }
}

/// A term in the external term format.
struct External<'b>(&'b [u8]);

impl Encoder for External<'_> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match env.binary_to_term(self.0) {
            Some((term, _)) => term,
            None => rustler::types::atom::nil().to_term(env),
        }
    }
}

impl Encoder for Wire<Record> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let Wire(Record {
            id,
            device,
            bytes,
            spec,
            since,
            location,
        }) = self;
        let (tag, trace) = (spec.label.tag.as_deref(), spec.label.trace.as_deref());
        map(
            env,
            &[
                (atoms::storage_id(), id),
                (atoms::device(), &Wire(*device)),
                (atoms::bytes(), bytes),
                (atoms::dtype(), &Wire(spec.dtype)),
                (atoms::shape(), &spec.shape.to_vec()),
                (atoms::owner(), &pid::term(env, spec.label.owner)),
                (atoms::tag(), &tag.map(External)),
                (atoms::age_ms(), &(since.elapsed().as_millis() as u64)),
                (atoms::stacktrace(), &trace.map(External)),
                (atoms::page(), &location.map(|location| location.page)),
                (atoms::offset(), &location.map(|location| location.offset)),
            ],
        )
    }
}

impl Encoder for Wire<PageInfo> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let kind = match self.0.kind {
            Use::Slab => atoms::slab(),
            Use::Dedicated => atoms::dedicated(),
            Use::Idle => atoms::idle(),
        };
        map(
            env,
            &[
                (atoms::page(), &self.0.page),
                (atoms::bytes(), &self.0.bytes),
                (atoms::used(), &self.0.used),
                (atoms::kind(), &kind),
            ],
        )
    }
}

impl Encoder for Wire<&Sum> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        map(
            env,
            &[
                (atoms::bytes(), &self.0.bytes),
                (atoms::buffers(), &self.0.buffers),
            ],
        )
    }
}

impl Encoder for Wire<Report> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let report = &self.0;
        let largest: Vec<_> = report.largest.iter().cloned().map(Wire).collect();
        let owners = report.by_owner.iter();
        let owners: Vec<_> = owners
            .map(|(owner, sum)| (pid::term(env, *owner), Wire(sum)))
            .collect();
        let tags = report.by_tag.iter();
        let tags: Vec<_> = tags
            .map(|(tag, sum)| (tag.as_deref().map(External), Wire(sum)))
            .collect();
        map(
            env,
            &[
                (atoms::largest(), &largest),
                (atoms::by_owner(), &owners),
                (atoms::by_tag(), &tags),
            ],
        )
    }
}

impl Encoder for Wire<Stats> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let stats = &self.0;
        map(
            env,
            &[
                (atoms::available(), &stats.available),
                (atoms::allocated(), &stats.allocated),
                (atoms::max(), &stats.max),
                (atoms::hits(), &stats.hits),
                (atoms::misses(), &stats.misses),
                (atoms::waits(), &stats.waits),
            ],
        )
    }
}
