"""What NumPy makes of the cases that test/support/numpy_cases.ex wrote: a line each, read with
ast.literal_eval. Prints what differs, and exits with 1 if anything does."""

import ast
import sys

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


def compare(op, dtype, a, b):
    functions = {
        "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
        "==": np.equal, "!=": np.not_equal,
    }
    return functions[op](a, b)


# Relative and absolute errors of the functions of float32, as the guide on kernels allows them.
ERRORS = {
    "exp": (1e-5, 1.2e-38), "log": (1e-5, 1e-6), "log1p": (1e-5, 0), "sin": (1e-4, 1e-5),
    "cos": (1e-4, 1e-5), "tan": (1e-3, 1e-5), "tanh": (1e-5, 1e-7), "sinh": (1e-5, 0),
    "cosh": (1e-5, 0), "asin": (1e-3, 0), "acos": (1e-3, 1e-3), "atan": (1e-4, 0),
    "rsqrt": (1e-6, 0), "sigmoid": (1e-5, 1e-7), "pow": (2e-5, 1.2e-38), "atan2": (1e-4, 1e-6),
}


def function(name, dtype, *args):
    wide = [np.asarray(arg).astype(np.float64) for arg in args]
    functions = {
        "log1p": np.log1p, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
        "atan2": np.arctan2, "pow": np.power, "rsqrt": lambda x: 1 / np.sqrt(x),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }
    exact = (functions.get(name) or getattr(np, name))(*wide)
    relative, absolute = ERRORS[name]
    if name == "sigmoid" and dtype == "f16":
        # Its exponential is infinite from 65,520 on, in NumPy too.
        absolute = 2e-5
    if dtype in ("f16", "bf16"):
        relative, absolute = (relative + (2**-10 if dtype == "f16" else 2**-7), absolute + 6e-8)
    return near(exact, dtype, relative * np.abs(exact) + absolute)


class Near:
    def __init__(self, value, error):
        self.value, self.error = value, error


def near(exact, dtype, error):
    value = rounded_bf16(exact) if dtype == "bf16" else exact.astype(TYPES[dtype])
    return Near(value, np.broadcast_to(error, np.shape(exact)))


def summed(dtype, x, axis):
    """A sum as exact as the documentation says: 64 at a time, in float32 for narrower floats."""
    if dtype not in FLOATS:
        return np.sum(x, axis=axis, dtype=np.uint64 if dtype[0] == "u" else np.int64)
    n = x.size if axis is None else x.shape[axis]
    exact = np.sum(x, axis=axis, dtype=np.longdouble)
    magnitude = np.sum(np.abs(x), axis=axis, dtype=np.longdouble)
    levels = max(1, int(np.ceil(np.log(max(n, 2)) / np.log(64))))
    unit = 2.0**-53 if dtype == "f64" else 2.0**-24
    error = 64 * levels * unit * magnitude
    if dtype == "f16":
        error = error + np.abs(exact) * 2.0**-11 + 6e-8
    return near(exact, dtype, error)


def multiplied(dtype, x, axis):
    if dtype not in FLOATS:
        return np.prod(x, axis=axis, dtype=np.uint64 if dtype[0] == "u" else np.int64)
    exact = np.prod(x, axis=axis, dtype=np.longdouble)
    n = x.size if axis is None else x.shape[axis]
    error = np.abs(exact) * (n * 2.0**-22 + (2.0**-10 if dtype == "f16" else 0)) + 1e-37 + (dtype == "f16") * 6e-8
    # In another order of the factors a product passes the range, or not: then it is anything.
    lengths = np.sum(np.abs(np.log2(np.abs(x.astype(np.longdouble)))), axis=axis)
    return near(exact, dtype, np.where(lengths < {"f16": 120, "f32": 120}.get(dtype, 1000), error, np.nan))


def averaged(dtype, x, axis):
    n = x.size if axis is None else x.shape[axis]
    out = dtype if dtype in FLOATS else "f32"
    exact = np.mean(x, axis=axis, dtype=np.longdouble)
    error = np.mean(np.abs(x.astype(np.longdouble)), axis=axis) * 64 * 3 * 2.0**-23
    if dtype == "f16":
        error = error + np.abs(exact) * 2.0**-10 + 6e-8
    return near(exact, out, error)


def running(dtype, x, axis):
    if dtype not in FLOATS:
        return np.cumsum(x, axis=axis, dtype=TYPES[dtype])
    exact = np.cumsum(x, axis=axis, dtype=np.longdouble)
    magnitude = np.cumsum(np.abs(x), axis=axis, dtype=np.longdouble)
    unit = 2.0**-53 if dtype == "f64" else 2.0**-24
    error = 64 * 4 * unit * magnitude
    if dtype == "f16":
        error = error + np.abs(exact) * 2.0**-10 + 6e-8
    return near(exact, dtype, error)


def product(dtype, a, b):
    if dtype not in FLOATS:
        return np.matmul(a, b).astype(TYPES[dtype])
    exact = np.matmul(a.astype(np.longdouble), b.astype(np.longdouble))
    magnitude = np.matmul(np.abs(a).astype(np.longdouble), np.abs(b).astype(np.longdouble))
    unit = 2.0**-53 if dtype == "f64" else 2.0**-24
    error = (a.shape[1] + 2) * unit * magnitude
    if dtype == "f16":
        error = error + np.abs(exact) * 2.0**-10 + 6e-8
    return near(exact, dtype, error)


def extreme(op, x, axis):
    value = (np.min if op == "min" else np.max)(x, axis=axis)
    # Of zeros with both signs NumPy may return either.
    return Near(value, np.zeros(np.shape(value)))


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


def main(path, shown=20):
    differences = programs = 0
    for line in open(path, encoding="utf-8"):
        case = ast.literal_eval(line)
        programs += 1
        inputs = {n: read(t, h).reshape(s) for n, t, s, h in case["inputs"]}
        names = {**globals(), **inputs, "ALL": np.ones(16, bool)}
        exec(case["python"], names)
        dtype = case["dtype"]
        found = read(dtype, case["out"]).reshape(case["shape"])
        expected = names["out"]
        value = expected.value if isinstance(expected, Near) else expected
        if np.shape(value) not in ((), found.shape) and np.size(value) != found.size:
            bad = np.ones(found.shape, bool)
        else:
            if isinstance(expected, Near):
                expected = Near(np.reshape(value, -1) if np.size(value) == found.size else value,
                                np.reshape(expected.error, -1) if np.size(value) == found.size else expected.error)
            elif np.size(value) == found.size:
                expected = np.reshape(value, -1)
            found = found.reshape(-1)
            bad = differing(expected, found, dtype)
        if bad.any():
            differences += 1
            if differences <= shown:
                at = int(np.argmax(bad.reshape(-1)))
                value = expected.value if isinstance(expected, Near) else expected
                wanted = np.broadcast_to(value, np.shape(found)).reshape(-1)[at]
                print(f"differs: {case['name']}\n  at {at}: {np.reshape(found, -1)[at]!r}, NumPy has {wanted!r} ({dtype})")
                for name, values in inputs.items():
                    flat = values.reshape(-1)
                    if flat.size > at:
                        print(f"    {name}[{at}] = {flat[at]!r}")
                print("    " + case["python"].replace("\n", "\n    "))
    print(f"{programs} programs, {differences} differ")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
