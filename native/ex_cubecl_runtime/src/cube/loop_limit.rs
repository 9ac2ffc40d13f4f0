//! Launches whose loops a driver may stop early: the kernels report a loop that did not reach its
//! end, and the caller waits for that report.

use std::sync::Arc;

use ex_cubecl_core::driver::{Argument, Driver, Page, Region, Run};
use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::error::{Error, Result};
use ex_cubecl_core::program::trip_count;

use crate::cube::launches::launch_all;
use crate::cube::{Backend, Cube, WINDOW_ALIGNMENT};
use crate::lower::launch::Launch;

/// Mesa's lavapipe stops every loop of a thread once the loops of this thread have made 65,535
/// iterations together.
const MAX_ITERATIONS: u64 = 65_000;

impl<B: Backend> Cube<B> {
    /// Whether the loops of a launch may make more iterations in a thread than some drivers allow.
    pub fn is_long(&self, run: &Run<'_>) -> bool {
        let program = run.program;
        if !trip_count::has_loop(&program.body) {
            return false;
        }
        let counts = run.arguments.iter().map(|argument| argument.count);
        let known = trip_count::Launch {
            program,
            scalars: run.scalars,
            counts: &counts.collect::<Vec<_>>(),
            invocations: run.invocations,
        };
        known.most() > MAX_ITERATIONS
    }

    /// Whether the driver stops long loops. The first call runs a long loop to find out.
    pub fn has_loop_limit(&self) -> Result<bool> {
        if let Some(known) = self.has_loop_limit.get() {
            return Ok(*known);
        }
        let page = self.alloc(WINDOW_ALIGNMENT)?;
        let program = Arc::new(trip_count::long_loop(2 * MAX_ITERATIONS as i32));
        let probe = Run {
            program: &program,
            arguments: vec![Argument {
                region: Some(word_of(&page)),
                dtype: DType::S32,
                count: 1,
            }],
            scalars: &[],
            invocations: 1,
        };
        let stops = match self.launch_with_loop_check(&[probe]) {
            Err(Error::LoopLimit { .. }) => true,
            outcome => outcome.map(|()| false)?,
        };
        Ok(*self.has_loop_limit.get_or_init(|| stops))
    }

    /// Launches kernels, waits until they have finished, and returns an error if the driver stopped
    /// one of their loops.
    pub fn launch_with_loop_check(&self, runs: &[Run<'_>]) -> Result<()> {
        let page = self.alloc(WINDOW_ALIGNMENT)?;
        let status = word_of(&page);
        self.write(status, &[0; 4], None)?;
        let window = Some(self.window(status)?);
        let checked = |run| {
            let launch = self.prepared(run)?;
            let status = window.clone();
            Ok(Launch { status, ..launch })
        };
        let launches = runs.iter().map(checked).collect::<Result<Vec<_>>>()?;
        self.entry(|| self.queue_and_wait(move |target| launch_all(target, &launches)))?;
        let mut notified = [0; 4];
        self.read(status, None)?.wait_into(0, &mut notified, None)?;
        if notified.iter().any(|byte| *byte != 0) {
            Err(Error::LoopLimit { device: self.id })
        } else {
            Ok(())
        }
    }
}

fn word_of(page: &Page) -> Region<'_> {
    Region {
        page,
        offset: 0,
        len: 4,
        slack: 0,
    }
}
