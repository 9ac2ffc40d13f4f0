"""What NumPy makes of kernels, and how results are compared."""

import numpy as np

np.seterr(all="ignore")

TYPES = {
    "u8": np.uint8, "s8": np.int8, "u16": np.uint16, "s16": np.int16, "u32": np.uint32,
    "s32": np.int32, "u64": np.uint64, "s64": np.int64, "f16": np.float16, "f32": np.float32,
    "f64": np.float64,
}
FLOATS = ("f16", "bf16", "f32", "f64")
# NumPy has no bf16: its numbers are float32 here, rounded after each operation.
BITS = {"u8": 8, "s8": 8, "u16": 16, "s16": 16, "u32": 32, "s32": 32, "u64": 64, "s64": 64}


def rounded_bf16(values):
    """The nearest bf16, as float32, ties to even; from any float or integer, rounded once."""
    values = np.asarray(values)
    if values.dtype == np.float32:
        single = values
    else:
        # Rounded to odd: what float32 loses stays seen in its last bit.
        wide = values.astype(np.longdouble)
        single = wide.astype(np.float32)
        back = single.astype(np.longdouble)
        bits = single.view(np.uint32)
        finite = np.isfinite(wide) & np.isfinite(single)
        away = finite & (np.abs(back) > np.abs(wide))
        bits = np.where(away, bits - np.uint32(1), bits)
        inexact = finite & (back != wide)
        single = np.where(inexact, bits | np.uint32(1), bits).astype(np.uint32).view(np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    up = (bits + np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    out = up.astype(np.uint32).view(np.float32)
    return np.where(np.isnan(single), np.float32("nan"), out).astype(np.float32)


def read(dtype, text):
    data = bytes.fromhex(text)
    if dtype == "bf16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, TYPES[dtype])


def number(value, dtype):
    if dtype == "bf16":
        return rounded_bf16(np.float64(value))
    return TYPES[dtype](value)


def cast(value, source, target):
    value = np.asarray(value)
    if source == target:
        return value
    if target == "bf16":
        return rounded_bf16(value)
    if source not in FLOATS or target in FLOATS:
        return value.astype(TYPES[target])
    # Cut off and held within the range.
    info = np.iinfo(TYPES[target])
    wide = value.astype(np.float64)
    past = np.float64(2.0) ** (BITS[target] - (target[0] == "s"))
    low = np.float64(info.min)
    inside = (wide >= low) & (wide < past)
    whole = np.where(inside, np.trunc(wide), 0).astype(TYPES[target])
    out = np.where(wide >= past, TYPES[target](info.max), whole)
    return np.where(wide < low, TYPES[target](info.min), out).astype(TYPES[target])


def settle(value, dtype):
    """Operations on one type stay in it."""
    if dtype == "bf16":
        return rounded_bf16(value)
    return np.asarray(value).astype(TYPES[dtype])


def divided(op, dtype, a, b):
    a, b = np.broadcast_arrays(a, b)
    zero = b == 0
    safe = np.where(zero, TYPES[dtype](1), b)
    minus = np.zeros(a.shape, bool)
    if dtype[0] == "s":
        minus = b == -1
        safe = np.where(minus, TYPES[dtype](1), safe)
    rest = np.fmod(a, safe)
    if op == "rem":
        return np.where(zero | minus, 0, rest).astype(TYPES[dtype])
    quotient = ((a - rest) // safe).astype(TYPES[dtype])
    quotient = np.where(minus, settle(TYPES[dtype](0) - a, dtype), quotient)
    return np.where(zero, 0, quotient).astype(TYPES[dtype])


def binary(op, dtype, a, b):
    a, b = np.asarray(a), np.asarray(b)
    if op in ("div", "rem") and dtype not in FLOATS:
        return divided(op, dtype, a, b)
    if op in ("bsl", "bsr"):
        distance = b & TYPES[dtype](BITS[dtype] - 1)
        return (np.left_shift if op == "bsl" else np.right_shift)(a, distance).astype(TYPES[dtype])
    if op in ("min", "max"):
        value = (np.minimum if op == "min" else np.maximum)(a, b)
        # NumPy leaves open which of two zeros it is: here it is the first.
        return np.where(a == b, a, value).astype(a.dtype)
    if dtype in FLOATS and op in ("+", "-", "*", "/", "rem") and dtype == "bf16":
        a, b = a.astype(np.float64), b.astype(np.float64)
    functions = {
        "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "rem": np.fmod,
        "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor,
    }
    return settle(functions[op](a, b), dtype)


def unary(op, dtype, a):
    a = np.asarray(a)
    if op == "count_ones":
        a = np.ascontiguousarray(np.atleast_1d(a))
        octets = a.view(np.uint8).reshape(a.shape + (a.dtype.itemsize,))
        return np.unpackbits(octets, axis=-1).sum(axis=-1).astype(TYPES[dtype])
    if op == "-" and dtype not in FLOATS:
        return settle(TYPES[dtype](0) - a, dtype)
    functions = {
        "-": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
        "round": np.rint, "sqrt": np.sqrt, "bnot": np.bitwise_not,
    }
    return settle(functions[op](a), dtype)


def compared(function, a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype:
        # Integers of any size: NumPy would convert uint64 and int64 to float64.
        a, b = a.astype(object), b.astype(object)
    return function(a, b).astype(bool)


def compare(op, a, b):
    functions = {
        "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
        "==": np.equal, "!=": np.not_equal,
    }
    return compared(functions[op], a, b)


# Relative and absolute errors of the functions of float32, as the guide on kernels allows them.
ERRORS = {
    "exp": (1e-5, 1.2e-38), "log": (1e-5, 1e-6), "log1p": (1e-5, 0), "sin": (1e-4, 1e-5),
    "cos": (1e-4, 1e-5), "tan": (1e-3, 1e-5), "tanh": (1e-5, 1e-7), "sinh": (1e-5, 0),
    "cosh": (1e-5, 0), "asin": (1e-3, 0), "acos": (1e-3, 1e-3), "atan": (1e-4, 0),
    "rsqrt": (1e-6, 0), "sigmoid": (1e-5, 1e-7), "pow": (2e-5, 1.2e-38), "atan2": (1e-4, 1e-6),
}


class Near:
    def __init__(self, value, error):
        self.value, self.error = value, error


def near(exact, dtype, error):
    value = rounded_bf16(exact) if dtype == "bf16" else exact.astype(TYPES[dtype])
    return Near(value, np.broadcast_to(error, np.shape(exact)))


def bits(values, dtype):
    values = np.asarray(values)
    if dtype == "bf16":
        return values.astype(np.float32).view(np.uint32) >> 16
    return np.atleast_1d(values).view(f"u{values.dtype.itemsize}")


def differing(expected, found, dtype):
    """Where they differ: bit for bit, but for the payload of NaN, or by more than an error."""
    if isinstance(expected, Near):
        value = np.broadcast_to(expected.value, found.shape)
        error = np.broadcast_to(expected.error, found.shape)
        if dtype not in FLOATS:
            return value != found
        same = (value == found) | (np.isnan(value) & np.isnan(found))
        distance = np.abs(value.astype(np.longdouble) - found.astype(np.longdouble))
        with_limits = np.isfinite(value) & np.isfinite(found) & (distance <= error)
        # Close to the largest number either may have passed it.
        most = float(np.finfo(np.float32 if dtype == "bf16" else TYPES[dtype]).max)
        edge = (np.maximum(np.abs(np.where(np.isfinite(value), value, most)),
                           np.abs(np.where(np.isfinite(found), found, most))) + error >= most) \
            & ~np.isnan(value) & ~np.isnan(found) & (np.sign(value) == np.sign(found)) \
            & (np.isfinite(value) != np.isfinite(found)) \
            & (np.minimum(np.abs(value), np.abs(found)).astype(np.longdouble) * (1 + 1e-3) + error >= most)
        return ~(same | with_limits | edge | np.isnan(error))
    value = np.broadcast_to(settle(expected, dtype), found.shape)
    unequal = bits(value, dtype).reshape(found.shape) != bits(found, dtype).reshape(found.shape)
    if dtype in FLOATS:
        unequal &= ~(np.isnan(value) & np.isnan(found))
    return unequal
