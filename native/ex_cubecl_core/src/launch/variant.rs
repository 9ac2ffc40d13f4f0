//! The second form of a program: with vectors for large buffers, or without for buffers that are not aligned.

use std::sync::Arc;

use crate::driver::Argument;
use crate::program::tree::{LANES, Program};

/// Below this number of invocations, a form with vectors gains less time than it takes to compile.
const MANY: u64 = 1 << 16;

#[derive(Debug)]
pub(super) struct Variant {
    program: Arc<Program>,
    /// The buffers that the form with vectors accesses by vectors.
    vectors: Vec<usize>,
    /// Whether `program` is the form with vectors.
    has_vectors: bool,
}

impl Variant {
    pub fn of(program: &Program) -> Option<Variant> {
        let vectors = program.vectors();
        if !vectors.is_empty() {
            return Some(Variant {
                program: Arc::new(program.scalarized()),
                vectors,
                has_vectors: false,
            });
        }
        let program = Arc::new(program.vectorized()?);
        Some(Variant {
            vectors: program.vectors(),
            program,
            has_vectors: true,
        })
    }

    /// This form, with its number of invocations, if it is better for a launch with these arguments.
    pub fn choose(
        &self,
        arguments: &[Argument<'_>],
        invocations: u64,
    ) -> Option<(&Arc<Program>, u64)> {
        if self.has_vectors && invocations < MANY {
            return None;
        }
        let elements = if self.has_vectors { invocations } else { 0 };
        let aligned = self.vectors.iter().all(|slot| {
            let argument = &arguments[*slot];
            holds_vectors(argument) && argument.count >= elements
        });
        let invocations = if self.has_vectors {
            invocations.div_ceil(LANES as u64)
        } else {
            invocations
        };
        (aligned == self.has_vectors).then_some((&self.program, invocations))
    }
}

/// Whether the buffer starts at the alignment of a vector, and may be accessed up to the end of its last vector.
fn holds_vectors(argument: &Argument<'_>) -> bool {
    let bytes = argument.dtype.size() * LANES as u64;
    argument.region.is_some_and(|region| {
        region.offset.is_multiple_of(bytes)
            && region.len.next_multiple_of(bytes) <= region.len + region.slack
    })
}
