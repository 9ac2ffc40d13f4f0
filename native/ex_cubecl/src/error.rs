//! Errors as `{reason, details}`: an atom to match on and the numbers. Elixir writes the messages.

use ex_cubecl_core::{DType, DeviceId, Error};
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;
use crate::term::{Wire, map};

/// The return type of a NIF. `Err` becomes `{:error, {reason, details}}`.
pub type Answer<'a, T> = Result<T, Fault<'a>>;

/// An error of core, or an error in a term that core does not see.
pub enum Fault<'a> {
    Core(Error),
    /// An element that its type cannot represent.
    Value {
        index: u64,
        value: Term<'a>,
        dtype: DType,
    },
    /// A row of the wrong length at this depth of a nested list.
    Ragged {
        depth: u64,
        expected: u64,
        actual: u64,
        shape: Vec<u64>,
    },
    /// A term that is not a list where a row of a nested list is expected.
    NoRow {
        depth: u64,
        expected: u64,
        value: Term<'a>,
        shape: Vec<u64>,
    },
    /// A flat list of the wrong length.
    Length {
        expected: u64,
        actual: u64,
        shape: Vec<u64>,
    },
    ImproperList,
    /// A transfer that was awaited before, or that belongs to another process.
    Transfer(Atom),
    /// An error of core on one device of several.
    On {
        device: DeviceId,
        error: Error,
    },
    /// A pool that has ended.
    Closed,
    /// A list that would not fit into memory.
    ListTooLong {
        requested: u64,
        limit: u64,
    },
}

impl From<Error> for Fault<'_> {
    fn from(error: Error) -> Self {
        Fault::Core(error)
    }
}

/// Turns `Busy` into `None`, which becomes `nil`: the call would have blocked.
pub fn soon<'a, T>(result: ex_cubecl_core::Result<T>) -> Answer<'a, Option<T>> {
    match result {
        Err(Error::Busy) => Ok(None),
        other => Ok(Some(other?)),
    }
}

impl Encoder for Fault<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        self.parts(env).encode(env)
    }
}

impl Fault<'_> {
    /// The reason and its details.
    pub fn parts<'b>(&self, env: Env<'b>) -> (Atom, Term<'b>) {
        match self {
            Fault::Core(error) => core(env, error),
            Fault::Value {
                index,
                value,
                dtype,
            } => {
                let dtype = Wire(*dtype);
                let pairs: &[(Atom, &dyn crate::term::DynEncoder)] = &[
                    (atoms::index(), index),
                    (atoms::value(), value),
                    (atoms::dtype(), &dtype),
                ];
                (atoms::invalid_value(), map(env, pairs))
            }
            Fault::Ragged {
                depth,
                expected,
                actual,
                shape,
            } => (
                atoms::shape_mismatch(),
                map(
                    env,
                    &[
                        (atoms::depth(), depth),
                        (atoms::expected(), expected),
                        (atoms::actual(), actual),
                        (atoms::shape(), shape),
                    ],
                ),
            ),
            Fault::NoRow {
                depth,
                expected,
                value,
                shape,
            } => (
                atoms::shape_mismatch(),
                map(
                    env,
                    &[
                        (atoms::depth(), depth),
                        (atoms::expected(), expected),
                        (atoms::value(), value),
                        (atoms::shape(), shape),
                    ],
                ),
            ),
            Fault::Length {
                expected,
                actual,
                shape,
            } => (
                atoms::shape_mismatch(),
                map(
                    env,
                    &[
                        (atoms::expected(), expected),
                        (atoms::actual(), actual),
                        (atoms::shape(), shape),
                    ],
                ),
            ),
            Fault::ImproperList => (
                atoms::invalid_argument(),
                map(
                    env,
                    &[
                        (atoms::argument(), &atoms::data()),
                        (atoms::reason(), &atoms::improper_list()),
                    ],
                ),
            ),
            Fault::Transfer(reason) => (
                atoms::invalid_argument(),
                map(
                    env,
                    &[
                        (atoms::argument(), &atoms::transfer()),
                        (atoms::reason(), reason),
                    ],
                ),
            ),
            Fault::On { device, error } => {
                let (reason, details) = core(env, error);
                let named = details.map_put(atoms::device(), Wire(*device));
                (reason, named.unwrap_or(details))
            }
            Fault::Closed => (
                atoms::stale(),
                map(env, &[(atoms::reason(), &atoms::closed())]),
            ),
            Fault::ListTooLong { requested, limit } => (
                atoms::too_large(),
                map(
                    env,
                    &[(atoms::requested(), requested), (atoms::limit(), limit)],
                ),
            ),
        }
    }
}

fn core<'b>(env: Env<'b>, error: &Error) -> (Atom, Term<'b>) {
    match error {
        Error::ShapeMismatch { expected, actual } => (
            atoms::shape_mismatch(),
            map(
                env,
                &[(atoms::expected(), expected), (atoms::actual(), actual)],
            ),
        ),
        Error::ByteMismatch { expected, actual } => (
            atoms::shape_mismatch(),
            map(
                env,
                &[
                    (atoms::expected_bytes(), expected),
                    (atoms::actual_bytes(), actual),
                ],
            ),
        ),
        Error::TypeMismatch { expected, actual } => (
            atoms::type_mismatch(),
            map(
                env,
                &[
                    (atoms::expected(), &Wire(*expected)),
                    (atoms::actual(), &Wire(*actual)),
                ],
            ),
        ),
        Error::OutOfBounds {
            offset,
            count,
            size,
        } => (
            atoms::out_of_bounds(),
            map(
                env,
                &[
                    (atoms::offset(), offset),
                    (atoms::count(), count),
                    (atoms::size(), size),
                ],
            ),
        ),
        Error::Overlap => (atoms::overlap(), map(env, &[])),
        Error::NotAllocated => (atoms::not_allocated(), map(env, &[])),
        Error::Stale => (atoms::stale(), map(env, &[])),
        Error::Foreign => (
            atoms::stale(),
            map(env, &[(atoms::reason(), &atoms::foreign())]),
        ),
        Error::NotRoot => argument(env, atoms::buffer(), atoms::view()),
        Error::BadKernel { reason } => argument(env, atoms::kernel(), &**reason),
        Error::ArenaInUse { holds } => argument(env, atoms::arena(), holds),
        Error::PoolExhausted { max } => (atoms::pool_exhausted(), map(env, &[(atoms::max(), max)])),
        Error::ArenaFull {
            requested,
            used,
            capacity,
        } => (
            atoms::limit_exceeded(),
            map(
                env,
                &[
                    (atoms::requested(), requested),
                    (atoms::used(), used),
                    (atoms::capacity(), capacity),
                ],
            ),
        ),
        Error::TooManyDevices { max } => (
            atoms::limit_exceeded(),
            map(env, &[(atoms::devices(), max)]),
        ),
        Error::Busy => (atoms::busy(), map(env, &[])),
        Error::NoDevice { reason } => (atoms::no_device(), map(env, &[(atoms::reason(), reason)])),
        Error::Driver { message } => (atoms::driver(), map(env, &[(atoms::message(), message)])),
        other => of_device(env, other),
    }
}

fn argument<'b>(
    env: Env<'b>,
    argument: Atom,
    reason: impl crate::term::DynEncoder,
) -> (Atom, Term<'b>) {
    (
        atoms::invalid_argument(),
        map(
            env,
            &[(atoms::argument(), &argument), (atoms::reason(), &reason)],
        ),
    )
}

/// The errors that name a device.
fn of_device<'b>(env: Env<'b>, error: &Error) -> (Atom, Term<'b>) {
    let named =
        |reason: Atom, device: &DeviceId, pairs: &[(Atom, &dyn crate::term::DynEncoder)]| {
            let device = Wire(*device);
            let mut all: Vec<(Atom, &dyn crate::term::DynEncoder)> = pairs.to_vec();
            all.push((atoms::device(), &device));
            (reason, map(env, &all))
        };
    match error {
        Error::TooLarge {
            requested,
            limit,
            device,
        } => {
            let pairs: &[(Atom, &dyn crate::term::DynEncoder)] =
                &[(atoms::requested(), requested), (atoms::limit(), limit)];
            named(atoms::too_large(), device, pairs)
        }
        Error::OutOfMemory {
            requested,
            available,
            device,
        } => {
            let pairs: &[(Atom, &dyn crate::term::DynEncoder)] = &[
                (atoms::requested(), requested),
                (atoms::available(), available),
            ];
            named(atoms::out_of_memory(), device, pairs)
        }
        Error::LimitExceeded {
            requested,
            live,
            limit,
            device,
        } => named(
            atoms::limit_exceeded(),
            device,
            &[
                (atoms::requested(), requested),
                (atoms::live(), live),
                (atoms::limit(), limit),
            ],
        ),
        Error::UnknownDevice { device, known } => {
            let known: Vec<Wire<DeviceId>> = known.iter().copied().map(Wire).collect();
            named(atoms::unknown_device(), device, &[(atoms::known(), &known)])
        }
        Error::Unsupported { operation, device } => named(
            atoms::unsupported(),
            device,
            &[(atoms::operation(), operation)],
        ),
        Error::BadDeviceId { device, on } => argument(
            env,
            atoms::r#as(),
            map(
                env,
                &[(atoms::device(), &Wire(*device)), (atoms::on(), &Wire(*on))],
            ),
        ),
        Error::UnsupportedDType {
            dtype,
            device,
            supported,
        } => {
            let supported: Vec<Wire<DType>> = supported.iter().copied().map(Wire).collect();
            let dtype = Wire(*dtype);
            named(
                atoms::unsupported_dtype(),
                device,
                &[(atoms::dtype(), &dtype), (atoms::supported(), &supported)],
            )
        }
        Error::OtherDevice { device, expected } => argument(
            env,
            atoms::buffer(),
            map(
                env,
                &[
                    (atoms::device(), &Wire(*device)),
                    (atoms::on(), &Wire(*expected)),
                ],
            ),
        ),
        Error::NotLogical { device } => {
            let argument = [(
                atoms::argument(),
                &atoms::device() as &dyn crate::term::DynEncoder,
            )];
            named(atoms::invalid_argument(), device, &argument)
        }
        Error::DeviceInUse {
            device,
            live_buffers,
        } => named(
            atoms::device_in_use(),
            device,
            &[(atoms::live_buffers(), live_buffers)],
        ),
        Error::TooManyRounds { device } => named(atoms::too_many_rounds(), device, &[]),
        Error::DeviceLost { device } => named(atoms::device_lost(), device, &[]),
        other => (
            atoms::driver(),
            map(env, &[(atoms::message(), &other.to_string())]),
        ),
    }
}
