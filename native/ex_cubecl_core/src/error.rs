//! All errors of core, with the numbers a caller needs to act on them.
//! The messages for users are written in one place, Elixir's `ExCubecl.Error`.

pub mod details;

use std::borrow::Cow;

use crate::device_id::DeviceId;
use crate::dtype::DType;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("expected {expected} elements, got {actual}")]
    ShapeMismatch { expected: u64, actual: u64 },
    #[error("expected {expected} bytes, got {actual}")]
    ByteMismatch { expected: u64, actual: u64 },
    #[error("expected elements of type {expected}, got {actual}")]
    TypeMismatch { expected: DType, actual: DType },
    /// Offset, count and size are in elements, or in bytes if the arguments of the call are in
    /// bytes.
    #[error("{count} at offset {offset} lie outside {size}")]
    OutOfBounds { offset: u64, count: u64, size: u64 },
    #[error("byte {offset} of the storage is no multiple of {alignment}")]
    Misaligned { offset: u64, alignment: u64 },
    #[error("source and destination share bytes")]
    Overlap,
    #[error("{bytes} bytes at address {address:#x} are no memory that {device} can read")]
    BadAddress {
        address: u64,
        bytes: u64,
        device: DeviceId,
    },
    #[error("nothing was ever written to this buffer")]
    NotAllocated,
    #[error("it was given back, or what lent it is gone")]
    Stale,
    #[error("it came from somewhere else")]
    Foreign,
    #[error("a view or clone, not the buffer that was given out")]
    NotRoot,
    #[error("all {max} buffers of the pool are held")]
    PoolExhausted { max: u64 },
    #[error("{requested} more bytes do not fit into an arena of {capacity} ({used} used)")]
    ArenaFull {
        requested: u64,
        used: u64,
        capacity: u64,
    },
    /// Tensors and windows exclude each other until the arena is reset.
    #[error("the arena holds {holds}")]
    ArenaInUse { holds: &'static str },
    #[error("{requested} bytes are more than the {limit} bytes that {device} takes in one buffer")]
    TooLarge {
        requested: u64,
        limit: u64,
        device: DeviceId,
    },
    #[error("{device} has no room for {requested} bytes")]
    OutOfMemory {
        requested: u64,
        available: Option<u64>,
        device: DeviceId,
    },
    #[error("{requested} more bytes would exceed the limit of {limit} on {device} ({live} live)")]
    LimitExceeded {
        requested: u64,
        live: u64,
        limit: u64,
        device: DeviceId,
    },
    #[error("no device on this machine: {reason}")]
    NoDevice { reason: String },
    #[error("there is no device {device}")]
    UnknownDevice {
        device: DeviceId,
        known: Vec<DeviceId>,
    },
    /// The id for a logical device on `on` is taken, or names another runtime.
    #[error("{device} cannot be another device on {on}")]
    BadDeviceId { device: DeviceId, on: DeviceId },
    #[error("{device} is an adapter of this machine, not a logical device")]
    NotLogical { device: DeviceId },
    #[error("{device} has {live_buffers} live buffers")]
    DeviceInUse { device: DeviceId, live_buffers: u64 },
    #[error("there are {max} logical devices already")]
    TooManyDevices { max: u64 },
    #[error("{device} was lost or reset")]
    DeviceLost { device: DeviceId },
    #[error("{device} cannot do {operation}")]
    Unsupported {
        operation: &'static str,
        device: DeviceId,
    },
    #[error("{device} does not calculate with {dtype}")]
    UnsupportedDType {
        dtype: DType,
        device: DeviceId,
        supported: Vec<DType>,
    },
    #[error("on {device}, not on {expected}")]
    OtherDevice {
        device: DeviceId,
        expected: DeviceId,
    },
    /// The outputs do not hold what the kernel computes.
    #[error("the driver of {device} stopped a loop before its end")]
    LoopLimit { device: DeviceId },
    #[error("{reason}")]
    BadKernel { reason: Cow<'static, str> },
    #[error("the device is busy")]
    Busy,
    /// An error of CubeCL or the driver, with the first line of its message.
    #[error("driver fault: {message}")]
    Driver { message: String },
}

impl Error {
    /// The same error, with `device` as the device that it names.
    pub fn on(self, device: DeviceId) -> Self {
        match self {
            Error::OutOfMemory {
                requested,
                available,
                ..
            } => Error::OutOfMemory {
                requested,
                available,
                device,
            },
            Error::Unsupported { operation, .. } => Error::Unsupported { operation, device },
            Error::LoopLimit { .. } => Error::LoopLimit { device },
            other => other,
        }
    }

    pub fn bad_kernel(reason: impl Into<Cow<'static, str>>) -> Self {
        Error::BadKernel {
            reason: reason.into(),
        }
    }

    /// Drivers' messages contain backtraces: only one line of a message is kept.
    pub fn driver(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut message = lines.next().unwrap_or("unknown fault").to_string();
        if message.ends_with(':')
            && let Some(next) = lines.next()
        {
            message = format!("{message} {next}");
        }
        message.truncate(message.floor_char_boundary(400));
        Error::Driver { message }
    }
}
