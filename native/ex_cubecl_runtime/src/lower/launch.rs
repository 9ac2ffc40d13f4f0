//! Launches of programs.

use std::sync::Arc;

use cubecl::ir::{ElemType, StorageType};
use cubecl::prelude::*;
use cubecl::server::{Binding, ComputeServer, KernelArguments};
use cubecl::{CubeTask, InfoBuilder};

use ex_cubecl_core::dtype::DType;
use ex_cubecl_core::error::Error;
use ex_cubecl_core::numeric;
use ex_cubecl_core::program::tree::Program;
use ex_cubecl_core::threads::large_stack::on_watched_stack;

use crate::guard::caught;
use crate::kernels::{LaunchResult, THREADS, Window};
use crate::lower::compiled::{Key, SlotUse};
use crate::lower::kernel::ProgramKernel;
use crate::lower::target::{COMPILE_LIMIT, STREAM, Target};
use crate::lower::types::{U32, carrier, elem};

/// Limit of cubes along one axis of a launch.
const MOST_CUBES: u32 = 65_535;

/// Arranges `groups` groups, or a few more, in rows: every device supports 65,535 along each axis.
fn in_rows(groups: u32) -> (u32, u32) {
    let rows = groups.div_ceil(MOST_CUBES).max(1);
    (groups.div_ceil(rows).max(1), rows)
}

/// A buffer of a launch: the bound window, and the number of elements.
pub struct Bound {
    pub window: Window,
    pub dtype: DType,
    pub count: u64,
}

/// A launch of a program with this many invocations. Each scalar is given as the bits of its element.
pub struct Launch {
    pub place: Arc<SlotUse>,
    pub buffers: Vec<Bound>,
    pub scalars: Vec<u64>,
    pub invocations: u32,
    /// A word that becomes 1 if the driver stops a loop before its end.
    pub status: Option<Window>,
}

impl Launch {
    fn key(&self) -> Key {
        Key::new(&self.place, self.status.is_some())
    }

    pub fn is_compiled(&self) -> bool {
        self.place.is_compiled(self.status.is_some())
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.place.program
    }

    /// Queues the launch, on CubeCL's device thread. A kernel that has to be compiled is also flushed to the device,
    /// and the result says whether that succeeded.
    pub fn queue<R: Runtime>(&self, target: &Target<R>) -> LaunchResult {
        let key = self.key();
        let (task, count, arguments) = self.task(&key, target);
        let known = key.is_compiled();
        let queued = target.server.submit_blocking(|server| {
            // SAFETY: in this mode, CubeCL keeps accesses inside the bound range, in addition to our own comparisons.
            let launch = |server: &mut R::Server| unsafe {
                server.launch(task, count, arguments, ExecutionMode::Checked, STREAM);
            };
            if known {
                launch(server);
                return Ok(());
            }
            on_watched_stack(COMPILE_LIMIT, &*target.overdue, || {
                launch(server);
                Ok(())
            })?;
            // It may wait for earlier kernels, for as long as they run. wgpu keeps an entry for every thread that has flushed, so this
            // is not done on the thread of the compilation.
            caught(|| server.flush(STREAM).map_err(Error::driver))
        });
        let queued = queued.map_err(|fault| format!("{fault:?}"));
        let outcome = queued.and_then(|queued| queued.map_err(words));
        if key.is_compiling() {
            key.compiled(outcome.is_ok());
        }
        outcome
    }

    fn task<R: Runtime>(&self, key: &Key, target: &Target<R>) -> Task<R> {
        let program = self.program();
        let group = program.group.as_ref();
        let cube = group.map_or(THREADS, |group| group.threads);
        let cubes = in_rows(match group {
            Some(_) => self.invocations,
            None => self.invocations.div_ceil(THREADS),
        });
        let settings = KernelSettings::default()
            .cube_dim(CubeDim::new_1d(cube))
            .address_type(AddressType::U32)
            .kernel_name("ex_cubecl_kernel");
        let mut arguments = Arguments::default();
        for buffer in &self.buffers {
            arguments.bind(&buffer.window, buffer.dtype);
        }
        if let Some(window) = &self.status {
            arguments.bind(window, DType::S32);
        }
        arguments.word(self.invocations);
        // `BlackBox::zero`.
        arguments.word(0);
        for buffer in &self.buffers {
            let first = buffer.window.offset / buffer.dtype.size();
            arguments.word(first as u32);
            arguments.word(buffer.count as u32);
        }
        if let Some(window) = &self.status {
            arguments.word((window.offset / 4) as u32);
        }
        for (dtype, bits) in program.scalars.iter().zip(&self.scalars) {
            let carrier = carrier(*dtype);
            let bits = numeric::convert_bits((*dtype).into(), carrier.into(), *bits);
            let bytes = &bits.to_le_bytes()[..carrier.size() as usize];
            arguments.scalar(bytes, elem(carrier));
        }
        let tree = ProgramKernel::<R> {
            key: key.clone(),
            program: program.clone(),
            settings,
            client: target.client.clone(),
        };
        let task = Box::new(KernelTask::<R::Compiler, ProgramKernel<R>>::new(tree));
        (
            task,
            CubeCount::Static(cubes.0, cubes.1, 1),
            arguments.done(),
        )
    }
}

fn words(fault: Error) -> String {
    match fault {
        Error::Driver { message } => message,
        other => other.to_string(),
    }
}

/// The kernel, the number of cubes, and the arguments.
type Task<R> = (
    Box<dyn CubeTask<<R as Runtime>::Compiler>>,
    CubeCount,
    KernelArguments,
);

/// The arguments in the form that CubeCL's launcher makes of them; the launcher itself passes them only to a client.
#[derive(Default)]
struct Arguments {
    buffers: Vec<Binding>,
    info: InfoBuilder,
}

impl Arguments {
    fn bind(&mut self, window: &Window, dtype: DType) {
        let binding = window.handle.clone().binding();
        let (bytes, size) = (binding.size_in_used(), dtype.size());
        let elements = window.words * 4 / size;
        let metadata = &mut self.info.metadata;
        metadata.register_array(bytes / size, elements, AddressType::U32);
        self.buffers.push(binding);
    }

    fn word(&mut self, value: u32) {
        self.scalar(&value.to_ne_bytes(), U32);
    }

    fn scalar(&mut self, bytes: &[u8], ty: ElemType) {
        self.info.scalars.push_raw(bytes, StorageType::Scalar(ty));
    }

    fn done(mut self) -> KernelArguments {
        let info = self.info.finish(AddressType::U32);
        KernelArguments::new()
            .with_buffers(self.buffers)
            .with_info(info)
    }
}
