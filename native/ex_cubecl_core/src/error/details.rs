//! The reason of an error and its details, as data from which callers in another language build their own error.

use super::Error;
use crate::device_id::DeviceId;
use crate::dtype::DType;

/// Keys and values, each key once.
pub type Details = Vec<(&'static str, Value)>;

/// A value in the details of an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(u64),
    /// A number that not every driver reports.
    Optional(Option<u64>),
    Text(String),
    /// A fixed name that programs compare with, such as that of an argument.
    Name(&'static str),
    DType(DType),
    DTypes(Vec<DType>),
    Device(DeviceId),
    Devices(Vec<DeviceId>),
    Map(Details),
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<&$type> for Value {
            fn from(value: &$type) -> Self {
                Value::$variant(value.clone().into())
            }
        })*
    };
}

from! {
    u64 => Number,
    Option<u64> => Optional,
    String => Text,
    &'static str => Text,
    std::borrow::Cow<'static, str> => Text,
    DType => DType,
    Vec<DType> => DTypes,
    DeviceId => Device,
    Vec<DeviceId> => Devices,
}

/// Keys with their values; a key without a value is the name of a variable.
macro_rules! details {
    ($($key:ident $(: $value:expr)?),*) => {
        vec![$((stringify!($key), details!(@value $key $($value)?))),*]
    };
    (@value $key:ident) => { Value::from($key) };
    (@value $key:ident $value:expr) => { Value::from($value) };
}

/// One row for each variant: its fields, the reason, and the details.
macro_rules! errors {
    ($($variant:ident $({ $($field:ident),* })? => $reason:literal [$($details:tt)*];)*) => {
        impl Error {
            /// The name of the kind of error. Several variants may share one.
            pub fn reason(&self) -> &'static str {
                match self {
                    $(Error::$variant { .. } => $reason,)*
                }
            }

            /// The numbers and names that the error is about.
            pub fn details(&self) -> Details {
                match self {
                    $(Error::$variant $({ $($field),* })? => details![$($details)*],)*
                }
            }
        }
    };
}

use Value::{Map, Name};

errors! {
    ShapeMismatch { expected, actual } => "shape_mismatch" [expected, actual];
    ByteMismatch { expected, actual } => "shape_mismatch" [expected_bytes: expected, actual_bytes: actual];
    TypeMismatch { expected, actual } => "type_mismatch" [expected, actual];
    OutOfBounds { offset, count, size } => "out_of_bounds" [offset, count, size];
    Misaligned { offset, alignment } => "invalid_argument" [argument: Name("buffer"), offset, alignment];
    BadAddress { address, bytes, device } => "invalid_argument" [argument: Name("address"), address, bytes, device];
    Overlap => "overlap" [];
    NotAllocated => "not_allocated" [];
    Stale => "stale" [];
    Foreign => "stale" [reason: Name("foreign")];
    NotRoot => "invalid_argument" [argument: Name("buffer"), reason: Name("view")];
    PoolExhausted { max } => "pool_exhausted" [max];
    ArenaFull { requested, used, capacity } => "limit_exceeded" [requested, used, capacity];
    ArenaInUse { holds } => "invalid_argument" [argument: Name("arena"), reason: holds];
    TooLarge { requested, limit, device } => "too_large" [requested, limit, device];
    OutOfMemory { requested, available, device } => "out_of_memory" [requested, available, device];
    LimitExceeded { requested, live, limit, device } => "limit_exceeded" [requested, live, limit, device];
    NoDevice { reason } => "no_device" [reason];
    UnknownDevice { device, known } => "unknown_device" [device, known];
    BadDeviceId { device, on } => "invalid_argument" [argument: Name("as"), reason: Map(details![device, on])];
    NotLogical { device } => "invalid_argument" [argument: Name("device"), device];
    DeviceInUse { device, live_buffers } => "device_in_use" [device, live_buffers];
    TooManyDevices { max } => "limit_exceeded" [devices: max];
    DeviceLost { device } => "device_lost" [device];
    Unsupported { operation, device } => "unsupported" [operation, device];
    UnsupportedDType { dtype, device, supported } => "unsupported_dtype" [dtype, device, supported];
    OtherDevice { device, expected } => "invalid_argument" [argument: Name("buffer"), reason: Map(details![device, on: expected])];
    LoopLimit { device } => "loop_limit" [device];
    BadKernel { reason } => "invalid_argument" [argument: Name("kernel"), reason];
    Busy => "busy" [];
    Driver { message } => "driver" [message];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_id::Runtime;

    fn vulkan(index: u32) -> DeviceId {
        DeviceId {
            runtime: Runtime::Vulkan,
            index,
        }
    }

    #[test]
    fn details_have_the_names_of_the_fields() {
        let error = Error::OutOfMemory {
            requested: 10,
            available: None,
            device: vulkan(0),
        };
        assert_eq!(error.reason(), "out_of_memory");
        let expected = vec![
            ("requested", Value::Number(10)),
            ("available", Value::Optional(None)),
            ("device", Value::Device(vulkan(0))),
        ];
        assert_eq!(error.details(), expected);
    }

    #[test]
    fn an_error_of_an_argument_names_it() {
        let error = Error::OtherDevice {
            device: vulkan(1),
            expected: vulkan(0),
        };
        assert_eq!(error.reason(), "invalid_argument");
        let devices = vec![
            ("device", Value::Device(vulkan(1))),
            ("on", Value::Device(vulkan(0))),
        ];
        let expected = vec![("argument", Name("buffer")), ("reason", Map(devices))];
        assert_eq!(error.details(), expected);
    }
}
