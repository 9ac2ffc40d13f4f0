//! Launches on CubeCL's device thread, awaited and not.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use ex_cubecl_core::driver::Run;
use ex_cubecl_core::error::{Error, Result};

use crate::cube::device_thread::Task;
use crate::cube::{Backend, Client, Cube, flushed};
use crate::guard::caught;
use crate::kernels::LaunchResult;
use crate::lower::compiled::SlotUse;
use crate::lower::launch::{Bound, Launch};
use crate::lower::target::{STREAM, Target};

impl<B: Backend> Cube<B> {
    /// Launches kernels and waits until they are queued.
    pub(crate) fn launch_and_wait(
        &self,
        kernel: impl FnOnce(&Client<B>) -> LaunchResult + Send + 'static,
    ) -> Result<()> {
        self.queue_and_wait(move |target| kernel(&target.client))
    }

    pub(crate) fn queue_and_wait(
        &self,
        kernel: impl FnOnce(&Target<B::Runtime>) -> LaunchResult + Send + 'static,
    ) -> Result<()> {
        let (target, timings) = (self.target(), self.timings.clone());
        let (flush, send_deferred) = (self.flush.clone(), self.send_deferred.clone());
        self.thread.call_before(Some(self.flush.clone()), move || {
            // CubeCL reports a failed launch once, to the next caller that flushes. Flush first, so
            // that failures of earlier launches are not reported to this caller.
            flush();
            send_deferred();
            timings.before_kernel();
            kernel(&target).map_err(Error::driver)?;
            flushed(&target.client).map(|()| timings.after_kernels())
        })
    }

    /// Launches compiled kernels, which are not expected to fail: if a launch fails all the same,
    /// the device counts as lost.
    pub(crate) fn later(&self, launches: Vec<Launch>) -> Task {
        let (target, broken) = (self.target(), self.broken.clone());
        let (timings, send_deferred) = (self.timings.clone(), self.send_deferred.clone());
        let run = move || {
            let all = || {
                send_deferred();
                timings.before_kernel();
                launch_all(&target, &launches).map_err(Error::driver)
            };
            let outcome = caught(|| STREAM.executes(all));
            if outcome.is_err() {
                broken.store(true, Release);
            }
        };
        Task {
            run: Box::new(run),
            after: Some(self.flush.clone()),
            awaited: false,
        }
    }

    pub(super) fn target(&self) -> Target<B::Runtime> {
        Target {
            client: self.client.clone(),
            server: self.server.clone(),
            overdue: self.overdue.clone(),
        }
    }

    pub(super) fn prepared(&self, run: &Run<'_>) -> Result<Launch> {
        let place = self.compiled.place(run.program)?;
        self.prepared_at(place, run)
    }

    pub(super) fn prepared_at(&self, place: Arc<SlotUse>, run: &Run<'_>) -> Result<Launch> {
        let arguments = run.arguments.iter();
        // An argument without elements is never accessed: any other region can be bound in its
        // place.
        let stand_in = arguments.clone().find_map(|argument| argument.region);
        let bound = arguments.filter_map(|argument| {
            let region = argument.region.or(stand_in)?;
            Some(self.window(region).map(|window| Bound {
                window,
                dtype: argument.dtype,
                count: argument.count,
            }))
        });
        Ok(Launch {
            buffers: bound.collect::<Result<_>>()?,
            place,
            scalars: run.scalars.to_vec(),
            invocations: run.invocations as u32,
            status: None,
        })
    }
}

pub(super) fn launch_all<R: cubecl::Runtime>(
    target: &Target<R>,
    launches: &[Launch],
) -> LaunchResult {
    launches.iter().try_for_each(|launch| launch.queue(target))
}
