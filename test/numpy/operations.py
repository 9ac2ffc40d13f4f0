"""What NumPy makes of the operations of ExCubecl.Ops, for test/support/numpy_operations.ex.

Results of floats that are not exact are calculated with longdouble, and have an error that the
documentation allows."""

import math

import numpy as np

from reference import BITS, ERRORS, FLOATS, TYPES, Near, binary, cast, compared, near, number, rounded_bf16, settle, unary

UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24, "f64": 2.0**-53}
# Sums and functions of narrow floats are calculated with f32.
WIDE = {"f16": 2.0**-24, "bf16": 2.0**-24, "f32": 2.0**-24, "f64": 2.0**-53}
SMALLEST = {"f16": 6e-8, "bf16": 1.2e-38, "f32": 1.2e-38, "f64": 2.3e-308}


def close(exact, dtype, error):
    """Near a number, after one rounding to the type; the error is that before it."""
    if dtype not in FLOATS:
        return exact
    exact = np.asarray(exact, np.longdouble)
    return near(exact, dtype, error + np.abs(exact) * 2 * UNIT[dtype] + 2 * SMALLEST[dtype])


def wide(x):
    return np.asarray(x).astype(np.longdouble)


def truth(values):
    return np.asarray(values).astype(np.uint8)


## Element-wise


def unary_of(name, dtype, x):
    x = np.asarray(x)
    floating = dtype in FLOATS
    if name == "logical_not":
        return truth(x == 0)
    if name == "is_nan":
        return truth(np.isnan(x)) if floating else truth(np.zeros(x.shape))
    if name == "is_infinity":
        return truth(np.isinf(x)) if floating else truth(np.zeros(x.shape))
    if name == "sign":
        return settle(np.where(x > 0, 1, np.where(x < 0, -1, x)) if floating else np.sign(x), dtype)
    if name == "relu":
        return binary("max", dtype, x, np.broadcast_to(number(0, dtype), x.shape))
    if name in ("floor", "ceil", "round") and not floating:
        return x
    if name == "round":
        whole = np.trunc(x)
        rest = x - whole
        away = whole + np.where(rest >= 0.5, 1, np.where(rest <= -0.5, -1, 0))
        return settle(np.where(np.abs(x) < 0.5, 0, away), dtype)
    if name == "population_count":
        return np.reshape(unary("count_ones", dtype, x), x.shape)
    if name == "count_leading_zeros":
        bits = np.ascontiguousarray(np.atleast_1d(x)).view(f"u{x.dtype.itemsize}")
        return np.reshape([BITS[dtype] - int(n).bit_length() for n in bits.reshape(-1)], x.shape).astype(x.dtype)
    if name == "abs" and not floating:
        return settle(np.abs(x), dtype)
    names = {"negate": "-", "bitwise_not": "bnot"}
    return unary(names.get(name, name), dtype, x)


def inverse_erf(x):
    """By Newton's method on math.erf."""
    if not abs(x) < 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan
    if x == 0:
        return x
    low, high = 0.0, 6.0
    complement = 1 - abs(x)
    for _ in range(200):
        middle = (low + high) / 2
        if math.erfc(middle) > complement:
            low = middle
        else:
            high = middle
    value = (low + high) / 2
    if value < 0.5:
        for _ in range(3):
            value -= (math.erf(value) - abs(x)) * math.sqrt(math.pi) / 2 * math.exp(value * value)
    return math.copysign(value, x)


def each(function):
    def safe(x):
        return math.nan if math.isnan(x) else function(x)
    return np.vectorize(safe, otypes=[np.float64])


FUNCTIONS = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": each(math.erf), "erfc": each(math.erfc), "erf_inv": each(inverse_erf),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * each(math.erfc)(x * -0.7071067811865476),
}


def function_of(name, dtype, x):
    exact = (FUNCTIONS.get(name) or getattr(np, name))(np.asarray(x).astype(np.float64))
    if dtype == "f64":
        return close(exact, dtype, 1e-12 * np.abs(exact) + 1e-14)
    relative, absolute = ERRORS.get(name, (2e-5, 1e-6))
    return close(exact, dtype, relative * np.abs(exact) + absolute)


def shifted(name, dtype, a, b):
    bits = BITS[dtype]
    mask = (1 << bits) - 1
    signed = dtype[0] == "s"

    def left(x, n):
        return x << n if n < bits else 0

    def right(x, n):
        return x >> min(n, bits)

    def one(x, n):
        x, n = int(x), int(n)
        forth, back = (left, right) if name == "left_shift" else (right, left)
        value = (forth(x, n) if n >= 0 else back(x, -n)) & mask
        return value - (1 << bits) if signed and value >> (bits - 1) else value

    return integers(one, dtype, a, b)


def powers(dtype, a, b):
    mask = (1 << BITS[dtype]) - 1

    def one(x, n):
        value = pow(int(x), int(n), mask + 1) if n >= 0 else 0
        return value - (mask + 1) if dtype[0] == "s" and value > mask // 2 else value

    return integers(one, dtype, a, b)


def integers(one, dtype, a, b):
    a, b = np.broadcast_arrays(a, b)
    values = [one(x, n) for x, n in zip(a.reshape(-1), b.reshape(-1))]
    return np.array(values, dtype=object).astype(TYPES[dtype]).reshape(a.shape)


COMPARISONS = {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "logical_and": np.logical_and,
    "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}
OPERATORS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "quotient": "div",
    "remainder": "rem", "bitwise_and": "band", "bitwise_or": "bor", "bitwise_xor": "bxor",
}


def binary_of(name, dtype, a, b):
    a, b = np.broadcast_arrays(a, b)
    if name in COMPARISONS:
        return truth(compared(COMPARISONS[name], a, b))
    if name in ("left_shift", "right_shift"):
        return shifted(name, dtype, a, b)
    if name == "integer_pow":
        return powers(dtype, a, b)
    if name in ("pow", "atan2"):
        exact = (np.power if name == "pow" else np.arctan2)(a.astype(np.float64), b.astype(np.float64))
        relative, absolute = ERRORS[name]
        return close(exact, dtype, relative * np.abs(exact) + absolute)
    return binary(OPERATORS.get(name, name), dtype, a, b)


def as_type(x, source, target):
    x = np.asarray(x)
    if source not in FLOATS or target in FLOATS:
        return cast(x, source, target)
    info = np.iinfo(TYPES[target])
    bits = BITS[target]

    def one(value):
        if np.isnan(value):
            return 0
        if np.isinf(value):
            return info.max if value > 0 else info.min
        low = int(value) & ((1 << bits) - 1)
        return low - (1 << bits) if target[0] == "s" and low >> (bits - 1) else low

    return np.array([one(v) for v in x.reshape(-1)], dtype=object).astype(TYPES[target]).reshape(x.shape)


## Reductions


def whole(dtype):
    return np.uint64 if dtype[0] == "u" else np.int64


def reduced(name, dtype, out, x, axis, keep, order):
    how = {"axis": axis, "keepdims": keep}
    if name in ("reduce_min", "reduce_max"):
        value = (np.min if name == "reduce_min" else np.max)(x, **how)
        return Near(value, np.zeros(np.shape(value)))
    if name in ("all", "any"):
        return truth((np.all if name == "all" else np.any)(x != 0, **how))
    if name in ("sum", "product") and dtype not in FLOATS:
        return (np.sum if name == "sum" else np.prod)(x, dtype=whole(dtype), **how)
    x = wide(x)
    n = x.size if axis is None else int(np.prod([x.shape[a] for a in axis]))
    unit = WIDE[out] * 64 * max(1, math.ceil(math.log(max(n, 2), 64)))
    magnitude = np.sum(np.abs(x), **how)
    if name == "sum":
        return close(np.sum(x, **how), out, unit * magnitude)
    if name == "product":
        exact = np.prod(x, **how)
        return close(exact, out, np.abs(exact) * 2 * n * WIDE[out])
    if name == "mean":
        return close(np.mean(x, **how), out, 2 * unit * np.mean(np.abs(x), **how))
    if name in ("variance", "standard_deviation"):
        exact = np.var(x, **how)
        error = 8 * unit * (np.mean(x * x, **how) + WIDE[out] * np.mean(x, **how) ** 2)
        if name == "variance":
            return close(exact, out, error)
        return close(np.sqrt(exact), out, np.where(exact > 0, error / np.sqrt(exact + error), np.sqrt(error)))
    if name == "norm":
        exact = norm(x, how, order)
        return close(exact, out, 8 * unit * np.abs(exact) + (1e-5 if out != "f64" else 1e-12) * np.abs(exact))
    exact = np.log(np.sum(np.exp(x), **how))
    return close(exact, out, (1e-5 if out != "f64" else 1e-12) * (np.abs(exact) + 1))


def norm(x, how, order):
    x = np.abs(x)
    if order == 0:
        return np.sum(x != 0, **how)
    if order in (np.inf, -np.inf):
        return (np.max if order > 0 else np.min)(x, **how)
    return np.sum(x**order, **how) ** (np.longdouble(1) / order)


def place(name, x, axis, high):
    function = np.argmin if name == "argmin" else np.argmax
    if not high:
        return function(x, axis=axis).astype(np.int32)
    at = -1 if axis is None else axis
    flat = np.reshape(x, -1) if axis is None else x
    return (flat.shape[at] - 1 - function(np.flip(flat, at), axis=at)).astype(np.int32)


def cumulative(name, dtype, x, axis, reverse):
    x = np.flip(x, axis) if reverse else x
    function = {
        "cumulative_sum": np.add, "cumulative_product": np.multiply,
        "cumulative_min": np.minimum, "cumulative_max": np.maximum,
    }[name].accumulate
    if name in ("cumulative_min", "cumulative_max"):
        value = function(x, axis=axis) if x.shape[axis] else x
        value = np.flip(value, axis) if reverse else value
        return Near(value, np.zeros(value.shape))
    if dtype not in FLOATS:
        value = function(x, axis=axis, dtype=TYPES[dtype])
        return np.flip(value, axis) if reverse else value
    exact = function(wide(x), axis=axis)
    magnitude = function(np.abs(wide(x)), axis=axis)
    error = 256 * WIDE[dtype] * magnitude
    if reverse:
        exact, error = np.flip(exact, axis), np.flip(error, axis)
    return close(exact, dtype, error)


def windows(x, window, strides, padding, value):
    x = np.pad(x, padding, constant_values=value) if x.ndim else x
    if not x.ndim:
        return x
    view = np.lib.stride_tricks.sliding_window_view(x, window)
    return view[tuple(slice(None, None, s) for s in strides)]


def window(name, dtype, out, x, lengths, strides, padding):
    floating = dtype in FLOATS
    axes = tuple(range(-x.ndim, 0)) if x.ndim else None
    if name in ("window_min", "window_max"):
        low, high = (-np.inf, np.inf) if floating else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        view = windows(x, lengths, strides, padding, high if name == "window_min" else low)
        value = (np.min if name == "window_min" else np.max)(view, axis=axes) if x.ndim else x
        return Near(value, np.zeros(np.shape(value)))
    value = 1 if name == "window_product" else 0
    function = np.prod if name == "window_product" else np.sum
    if not floating and name != "window_mean":
        view = windows(x, lengths, strides, padding, value)
        return (function(view, axis=axes, dtype=whole(dtype)) if x.ndim else x).astype(x.dtype)
    view = windows(wide(x), lengths, strides, padding, value)
    exact = function(view, axis=axes) if x.ndim else view
    magnitude = function(np.abs(view), axis=axes) if x.ndim else np.abs(view)
    n = int(np.prod(lengths))
    if name == "window_mean":
        exact, magnitude = exact / n, magnitude / n
    return close(exact, out, 2 * n * WIDE[out] * magnitude)


## Order and rows


def order_of(x, axis, descending):
    """Stable in both directions, with NaN as the greatest element."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    last = x.shape[axis] - 1
    return np.flip(last - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def distinct(x):
    """In ascending order; of equal elements the first one, and one NaN."""
    x = np.sort(np.reshape(x, -1), kind="stable")
    same = (x[1:] == x[:-1]) | ((x[1:] != x[1:]) & (x[:-1] != x[:-1]))
    return x[np.concatenate([np.ones(min(x.size, 1), bool), ~same])] if x.size else x


def ordered(name, x, axis, descending, k):
    at = order_of(x, axis, descending)
    if name == "argsort":
        return at.astype(np.int32)
    value = np.take_along_axis(x, at, axis)
    return value if k is None else np.take(value, range(k), axis)


def row(name, dtype, out, x, axis):
    x = wide(cast(x, dtype, out))
    count = x.shape[axis]
    error = 1e-5 if out != "f64" else 1e-12
    if name in ("softmax", "log_softmax"):
        moved = x - np.max(x, axis=axis, keepdims=True)
        total = np.sum(np.exp(moved), axis=axis, keepdims=True)
        exact = np.exp(moved) / total if name == "softmax" else moved - np.log(total)
        return close(exact, out, error * (np.abs(exact) + (0 if name == "softmax" else 1)))
    mean = np.mean(x, axis=axis, keepdims=True) if name == "layer_norm" else 0
    square = np.mean((x - mean) ** 2, axis=axis, keepdims=True)
    exact = (x - mean) / np.sqrt(square + np.longdouble(1e-5))
    # The difference of the mean loses what the mean has.
    lost = np.abs(mean) * WIDE[out] * 8 * count / np.sqrt(square + 1e-5)
    return close(exact, out, error * (np.abs(exact) + 1) + lost * (1 + np.abs(exact)))


## Movement


def put_slice(x, starts, y):
    out = np.array(x)
    out[tuple(slice(s, s + n) for s, n in zip(starts, y.shape))] = y
    return out


def padded(x, value, config):
    x = np.asarray(x)
    shape, inside = [], []
    for n, (low, high, inner) in zip(x.shape, config):
        shape.append(max(n + (n - 1) * inner, 0) if n else 0)
        inside.append(slice(None, None, inner + 1))
    spread = np.full(shape, value, x.dtype)
    spread[tuple(inside)] = x
    for axis, (low, high, _) in enumerate(config):
        n = spread.shape[axis]
        kept = slice(max(-low, 0), n - max(-high, 0))
        spread = spread[(slice(None),) * axis + (kept,)]
        widths = [(0, 0)] * spread.ndim
        widths[axis] = (max(low, 0), max(high, 0))
        spread = np.pad(spread, widths, constant_values=value)
    return spread


def scattered(name, dtype, x, at, y):
    out = wide(x) if dtype in FLOATS else np.array(x)
    sizes = np.abs(out) if dtype in FLOATS else None
    for index, value in zip(at, y):
        if name == "indexed_put":
            out[tuple(index)] = value
        else:
            out[tuple(index)] += wide(value) if dtype in FLOATS else value
            if sizes is not None:
                sizes[tuple(index)] += np.abs(wide(value))
    if name == "indexed_put" or dtype not in FLOATS:
        return settle(out, dtype)
    return close(out, dtype, 64 * WIDE[dtype] * sizes)


## Products and transforms


def product_of(dtype, function, x, y, count):
    if dtype not in FLOATS:
        return function(x, y).astype(TYPES[dtype])
    exact = function(wide(x), wide(y))
    magnitude = function(np.abs(wide(x)), np.abs(wide(y)))
    return close(exact, dtype, (count + 2) * WIDE[dtype] * magnitude)


def convolution(dtype, out, x, k, strides, padding):
    x, k = wide(x), wide(k)
    x = np.pad(x, [(0, 0), (0, 0)] + padding)
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, k.shape[2:], axes)
    view = view[(slice(None), slice(None)) + tuple(slice(None, None, s) for s in strides)]
    letters = "ijkl"[: len(axes)]
    inner = "mnpq"[: len(axes)]
    text = f"bc{letters}{inner},oc{inner}->bo{letters}"
    exact = np.einsum(text, view, k)
    magnitude = np.einsum(text, np.abs(view), np.abs(k))
    count = int(np.prod(k.shape[1:]))
    return close(exact, out, (count + 2) * WIDE[out] * magnitude)


def transformed(name, dtype, x, axis, n):
    x = np.asarray(x)
    numbers = x.astype(np.float64) if name == "rfft" else x[..., 0].astype(np.float64) + 1j * x[..., 1].astype(np.float64)
    if name in ("fft2", "ifft2"):
        value = getattr(np.fft, name)(numbers)
        axes, n = (-2, -1), value.shape[-1] * value.shape[-2]
    else:
        value = getattr(np.fft, name)(numbers, n, axis)
        axes = (axis,)
    # NaN and infinities reach all numbers of a transform, in other combinations here.
    special = ~np.all(np.isfinite(numbers), axis=axes, keepdims=True)
    size = np.sqrt(np.sum(np.abs(numbers) ** 2, axis=axes, keepdims=True))
    scale = math.sqrt(n) if name in ("ifft", "ifft2", "irfft") else 1
    error = np.where(special, np.nan, 30 * (WIDE[dtype] * size) * 2 / scale)
    error = np.broadcast_to(error, value.shape)
    if name != "irfft":
        value = np.stack([value.real, value.imag], axis=-1)
        error = np.stack([error, error], axis=-1)
    return near(value, dtype, error)
