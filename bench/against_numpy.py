"""The times of NumPy for bench/against_numpy.exs: a line for each row, the median in seconds."""

import sys
import time

import numpy as np


def rows(path):
    for line in open(path, encoding="utf-8"):
        # A tuple of Elixir: {[[1000], [1000]], "a + b"}.
        shapes, expression = line.strip()[1:-1].split(', "', 1)
        yield eval(shapes), expression.rstrip('"')


def median(shapes, expression, rounds):
    random = np.random.default_rng(1)
    operands = [random.uniform(0.1, 2.0, shape).astype(np.float32) for shape in shapes]
    names = dict(zip("ab", operands), np=np)
    code = compile(expression, "row", "eval")
    eval(code, names)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        eval(code, names)
        times.append(time.perf_counter() - started)
    return sorted(times)[rounds // 2]


for shapes, expression in rows(sys.argv[1]):
    print(f"{median(shapes, expression, int(sys.argv[2])):.9f}")
