"""Compares the cases that test/support/numpy_cases.ex wrote with NumPy: a line each, read with
ast.literal_eval. Prints what differs, and exits with 1 if anything does."""

import ast
import sys
import warnings

import numpy as np

import operations
import reference
from reference import Near, differing, read

np.seterr(all="ignore")
# The mean of no elements is NaN.
warnings.simplefilter("ignore", RuntimeWarning)


def main(path, shown=20):
    differences = programs = 0
    for line in open(path, encoding="utf-8"):
        case = ast.literal_eval(line)
        programs += 1
        inputs = {n: read(t, h).reshape(s) for n, t, s, h in case["inputs"]}
        names = {**vars(reference), **vars(operations), **inputs, "ALL": np.ones(16, bool)}
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
