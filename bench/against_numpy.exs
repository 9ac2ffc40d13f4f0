# Compares operations of ExCubecl.Ops with NumPy, on this machine: make bench-numpy
#
#     mix run bench/against_numpy.exs
#
# PYTHON is the path of an interpreter with NumPy, EX_CUBECL_DEVICE selects the device. NumPy runs first, in a process of its own; then the device, each row as the
# median of several calls, from the call to the end of the work on the device. Results stay on the device. The table is written to bench/results/numpy.txt.

defmodule NumpyBench do
  alias ExCubecl.{Buffer, Ops, View}

  @rounds 11
  @results Path.expand("results/numpy.txt", __DIR__)
  @reference Path.expand("against_numpy.py", __DIR__)

  # A name, the shapes of float32 operands, the expression of NumPy, and the operation.
  defp rows do
    million = 1_048_576
    large = [16 * million]
    matrix = [2000, 2000]

    [
      {"add, 16 Mi", [large, large], "a + b", &Ops.add!/2},
      {"add, 1 Mi", [[million], [million]], "a + b", &Ops.add!/2},
      {"add, 1000", [[1000], [1000]], "a + b", &Ops.add!/2},
      {"add [2000, 2000] and [2000]", [matrix, [2000]], "a + b", &Ops.add!/2},
      {"exp, 16 Mi", [large], "np.exp(a)", &Ops.exp!/1},
      {"sin, 16 Mi", [large], "np.sin(a)", &Ops.sin!/1},
      {"sqrt, 16 Mi", [large], "np.sqrt(a)", &Ops.sqrt!/1},
      {"pow, 1 Mi", [[million], [million]], "np.power(a, b)", &Ops.pow!/2},
      {"select, 1 Mi", [[million], [million]], "np.where(a > b, a, b)",
       &Ops.select!(Ops.greater!(&1, &2), &1, &2)},
      {"sum, 16 Mi", [large], "np.sum(a)", &Ops.sum!/1},
      {"sum along axis 0", [matrix], "np.sum(a, axis=0)", &Ops.sum!(&1, axis: 0)},
      {"sum along axis 1", [matrix], "np.sum(a, axis=1)", &Ops.sum!(&1, axis: 1)},
      {"argmax, 16 Mi", [large], "np.argmax(a)", &Ops.argmax!/1},
      {"variance along axis 1", [matrix], "np.var(a, axis=1)", &Ops.variance!(&1, axis: 1)},
      {"cumulative_sum, 1 Mi", [[million]], "np.cumsum(a)", &Ops.cumulative_sum!/1},
      {"transpose, copied", [matrix], "np.ascontiguousarray(a.T)", &Ops.transpose!/1},
      {"every second element of a column, copied", [matrix], "a[:, ::2].copy()",
       &View.to_buffer!(View.slice!(&1, [0, 0], [2000, 1999], strides: [1, 2]))},
      {"concatenate", [matrix, matrix], "np.concatenate([a, b], 1)",
       &Ops.concatenate!([&1, &2], axis: 1)},
      {"sort, 1 Mi", [[million]], "np.sort(a, kind='stable')", &Ops.sort!/1},
      {"argsort, 1 Mi", [[million]], "np.argsort(a, kind='stable')", &Ops.argsort!/1},
      {"matmul 512", [[512, 512], [512, 512]], "a @ b", &Ops.matmul!/2},
      {"matmul 1024", [[1024, 1024], [1024, 1024]], "a @ b", &Ops.matmul!/2},
      {"matrix times vector, 2000", [matrix, [2000]], "a @ b", &Ops.matmul!/2},
      {"fft, 2^20", [[million, 2]], "np.fft.fft(a.view(np.complex64)[:, 0])", &Ops.fft!/1},
      {"fft of 1000 rows of 1024", [[1000, 1024, 2]], "np.fft.fft(a.view(np.complex64)[..., 0])",
       &Ops.fft!/1},
      {"softmax of rows", [matrix],
       "(lambda e: e / e.sum(1, keepdims=True))(np.exp(a - a.max(1, keepdims=True)))",
       &Ops.softmax!/1}
    ]
  end

  def run do
    {:ok, device} = ExCubecl.Device.info(nil)
    rows = rows()
    numpy = numpy(rows)

    lines =
      for {{name, shapes, _expression, operation}, theirs} <- Enum.zip(rows, numpy) do
        ours = time(shapes, operation)
        [name, text(ours), text(theirs), :io_lib.format("~.2f", [theirs / ours])]
      end

    head =
      "device #{inspect(device.id)} #{device.name}; medians in ms; ratio: how many times as fast as NumPy\n\n"

    table = Enum.map([["", "ExCubecl", "NumPy", "ratio"] | lines], &line/1)
    IO.puts([head, table])
    File.mkdir_p!(Path.dirname(@results))
    File.write!(@results, [head, table])
  end

  defp line([name | numbers]),
    do: [
      String.pad_trailing(name, 44),
      Enum.map(numbers, &String.pad_leading(to_string(&1), 12)),
      "\n"
    ]

  defp text(seconds), do: :io_lib.format("~.3f", [seconds * 1000])

  # Seconds, one for each row.
  defp numpy(rows) do
    text =
      for {_, shapes, expression, _} <- rows,
          do: [inspect({shapes, expression}, limit: :infinity), "\n"]

    path = Path.join(System.tmp_dir!(), "ex_cubecl_numpy_bench_#{System.pid()}.txt")

    try do
      File.write!(path, text)
      python = System.get_env("PYTHON") || "python3"
      {out, 0} = System.cmd(python, [@reference, path, "#{@rounds}"])
      for line <- String.split(out, "\n", trim: true), do: String.to_float(line)
    after
      File.rm(path)
    end
  end

  defp time(shapes, operation) do
    operands =
      for {shape, at} <- Enum.with_index(shapes),
          do: Ops.random_uniform!(shape, at, low: 0.1, high: 2.0)

    # The first call compiles.
    done(apply(operation, operands))

    times =
      for _ <- 1..@rounds do
        :erlang.garbage_collect()
        started = System.monotonic_time()
        done(apply(operation, operands))
        System.monotonic_time() - started
      end

    nanoseconds = times |> Enum.sort() |> Enum.at(div(@rounds, 2))
    System.convert_time_unit(nanoseconds, :native, :nanosecond) / 1.0e9
  end

  defp done(buffer), do: Buffer.synchronize!(buffer)
end

NumpyBench.run()
