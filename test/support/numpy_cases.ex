defmodule ExCubecl.NumpyCases do
  @moduledoc false
  # Runs programs on the device and writes them to a file with their results, which
  # `test/numpy/reference.py` compares with NumPy.

  alias ExCubecl.{Buffer, DType, Kernel, Ops, TypedPrograms}

  require Kernel

  @doc "The path of a Python with NumPy, or nil. `scripts/numpy` installs one."
  def python do
    candidates = [System.get_env("PYTHON"), "python3", Path.expand("_build/numpy/bin/python")]

    Enum.find_value(candidates, fn python ->
      path = python && System.find_executable(python)
      import = ["-c", "import numpy"]
      if path && match?({_, 0}, System.cmd(path, import, stderr_to_stdout: true)), do: path
    end)
  end

  @doc "Writes this many cases. They depend only on the seed and the types of the device."
  def write(path, count, seed) do
    :rand.seed(:exsss, {seed, 14, 4})
    {:ok, info} = ExCubecl.Device.info(nil)
    types = Enum.filter(DType.all(), &(&1 in info.dtypes))
    exact = TypedPrograms.exact?(info)

    lines =
      for n <- 1..count do
        case rem(n, 5) do
          0 -> conversion()
          1 -> operation(types)
          2 -> kernel(TypedPrograms.indexed(types, exact))
          _ -> kernel(TypedPrograms.element_wise(types, exact))
        end
        |> line()
      end

    File.write!(path, lines)
  end

  ## Kernels

  defp kernel(program) do
    {names, body} = TypedPrograms.quoted(program)
    data = for {name, type} <- program.args, do: {name, type, [16], TypedPrograms.elements(type)}
    buffers = for {_, type, shape, bytes} <- data, do: ExCubecl.buffer!(bytes, shape, type)
    kernel = kernel_of(names, body)

    out =
      if program.form == :indexed do
        out = Buffer.zeros!([16], program.out)
        :ok = Kernel.run(kernel, buffers ++ [out])
        out
      else
        Kernel.run!(kernel, buffers)
      end

    %{name: Macro.to_string(body), inputs: data, python: TypedPrograms.python(program), out: out}
  end

  @doc "A kernel of quoted code."
  def kernel_of(names, body) do
    function = {:fn, [], [{:->, [], [Enum.map(names, &{&1, [], nil}), body]}]}

    code =
      quote do
        require ExCubecl.Kernel
        ExCubecl.Kernel.kernel(unquote(function))
      end

    code |> Code.eval_quoted() |> elem(0)
  end

  ## Conversions, of types that the device does not calculate with too

  defp conversion do
    [from, to] = for _ <- 1..2, do: Enum.random(DType.all())
    {data, buffer} = input(:x, from, [16])
    python = "out = cast(x, '#{from}', '#{to}')"
    %{name: "convert", inputs: [data], python: python, out: Buffer.convert!(buffer, to)}
  end

  defp input(name, type, shape, bytes \\ nil) do
    needed = Enum.product(shape) * DType.size!(type)
    bytes = bytes || repeated(type, needed)
    {{name, type, shape, bytes}, ExCubecl.buffer!(bytes, shape, type)}
  end

  defp repeated(type, needed) do
    Stream.repeatedly(fn -> TypedPrograms.elements(type) end)
    |> Enum.take(div(needed, 16 * DType.size!(type)) + 1)
    |> IO.iodata_to_binary()
    |> binary_part(0, needed)
  end

  ## Ops

  @functions ~w(exp log sqrt rsqrt sin cos tanh floor ceil round sigmoid abs negate relu)a
  @more ~w(log1p tan sinh cosh asin acos atan)a

  defp operation(types) do
    type = Enum.random(types)

    case :rand.uniform(8) do
      1 -> binary(type, Enum.random(types))
      2 -> one(Enum.random(@functions), Enum.random(floats(types)))
      3 -> more(Enum.random(@more ++ [:pow, :atan2]), Enum.random(floats(types) -- [:f64]))
      n when n in 4..5 -> reduction(type)
      6 -> place(type)
      7 -> matrix(type)
      8 -> moved(type)
    end
  end

  defp floats(types), do: Enum.filter(types, &TypedPrograms.float?/1)

  @binary [
    add: "+",
    subtract: "-",
    multiply: "*",
    min: "min",
    max: "max",
    remainder: "rem",
    equal: "==",
    not_equal: "!=",
    less: "<",
    less_equal: "<=",
    greater: ">",
    greater_equal: ">="
  ]

  defp binary(a, b) do
    {name, op} = Enum.random(@binary)
    mixed = TypedPrograms.mix(a, b)
    # The device has no exact remainder for f64.
    {name, op} = if name == :remainder and mixed == :f64, do: {:add, "+"}, else: {name, op}
    {first, x} = input(:x, a, [4, 4])
    {second, y} = input(:y, b, Enum.random([[4, 4], [4], [1, 4], [4, 1], [1]]))
    cast = fn name, type -> "cast(#{name}, '#{type}', '#{mixed}')" end
    function = if op in ~w(== != < <= > >=), do: "compare", else: "binary"
    python = "out = #{function}('#{op}', '#{mixed}', #{cast.(:x, a)}, #{cast.(:y, b)})"
    python = if function == "compare", do: python <> ".astype(np.uint8)", else: python

    %{
      name: "#{name}",
      inputs: [first, second],
      python: python,
      out: apply(Ops, name, [x, y]) |> ok()
    }
  end

  defp one(name, type) do
    name = if type == :f64 and name in ~w(exp log sin cos tanh sigmoid)a, do: :abs, else: name
    {data, x} = input(:x, type, [16], moderate(name, type))

    python =
      case name do
        :negate -> "unary('-', '#{type}', x)"
        :relu -> "binary('max', '#{type}', x, number(0, '#{type}'))"
        name when name in ~w(floor ceil round abs sqrt)a -> "unary('#{name}', '#{type}', x)"
        name -> "function('#{name}', '#{type}', x)"
      end

    %{name: "#{name}", inputs: [data], python: "out = " <> python, out: ok(apply(Ops, name, [x]))}
  end

  # The error of sin, cos and tan grows with the argument.
  defp moderate(name, type) when name in [:sin, :cos, :tan] do
    special = [:nan, :infinity, :neg_infinity, 0.0, -0.0, 1.0e-6]
    values = special ++ for _ <- 1..10, do: :rand.uniform() * 20 - 10
    values |> Enum.map(&ExCubecl.Conversion.bits(&1, type)) |> ExCubecl.Conversion.binary(type)
  end

  defp moderate(_name, _type), do: nil

  for name <- @more,
      do:
        defp(more_kernel(unquote(name)), do: kernel_of([:x], {unquote(name), [], [{:x, [], nil}]}))

  defp more(name, type) when name in [:pow, :atan2] do
    {first, x} = input(:x, type, [16])
    {second, y} = input(:y, type, [16])
    python = "out = function('#{name}', '#{type}', x, y)"
    %{name: "#{name}", inputs: [first, second], python: python, out: ok(apply(Ops, name, [x, y]))}
  end

  defp more(name, type) do
    {data, x} = input(:x, type, [16], moderate(name, type))
    python = "out = function('#{name}', '#{type}', x)"
    %{name: "#{name}", inputs: [data], python: python, out: Kernel.run!(more_kernel(name), [x])}
  end

  defp reduction(type) do
    {shape, axis} = shape_and_axis()
    {data, x} = input(:x, type, shape, Enum.random([nil, tame(type, Enum.product(shape))]))
    opts = if axis, do: [axis: axis], else: []
    at = if axis, do: "#{axis}", else: "None"

    {name, python} =
      Enum.random([
        {:sum, "summed('#{type}', x, #{at})"},
        {:product, "multiplied('#{type}', x, #{at})"},
        {:mean, "averaged('#{type}', x, #{at})"},
        {:reduce_min, "extreme('min', x, #{at})"},
        {:reduce_max, "extreme('max', x, #{at})"},
        {:cumulative_sum, "running('#{type}', x, #{axis || -1})"}
      ])

    opts = if name == :cumulative_sum and axis == nil, do: [axis: -1], else: opts

    %{
      name: "#{name} #{inspect(shape)} #{at}",
      inputs: [data],
      python: "out = " <> python,
      out: ok(apply(Ops, name, [x, opts]))
    }
  end

  defp shape_and_axis do
    Enum.random([
      {[200], nil},
      {[5000], 0},
      {[3, 70], 1},
      {[70, 3], 0},
      {[2, 65, 3], 1},
      {[130, 2], nil},
      {[7], nil}
    ])
  end

  # Without NaN and infinities, so that sums are meaningful.
  defp tame(type, count) do
    for _ <- 1..count, into: <<>> do
      number =
        if TypedPrograms.float?(type), do: :rand.uniform() * 20 - 10, else: Enum.random(0..100)

      ExCubecl.Conversion.binary([ExCubecl.Conversion.bits(number, type)], type)
    end
  end

  defp place(type) do
    {shape, axis} = shape_and_axis()
    {data, x} = input(:x, type, shape)
    name = Enum.random([:argmin, :argmax])
    {opts, at} = if axis, do: {[axis: axis], "#{axis}"}, else: {[], "None"}
    python = "out = np.#{name}(x, axis=#{at}).astype(np.int32)"
    %{name: "#{name}", inputs: [data], python: python, out: ok(apply(Ops, name, [x, opts]))}
  end

  defp matrix(type) do
    {m, k, n} = {:rand.uniform(9), :rand.uniform(70), :rand.uniform(9)}
    {first, a} = input(:a, type, [m, k], tame(type, m * k))
    {second, b} = input(:b, type, [k, n], tame(type, k * n))
    python = "out = product('#{type}', a, b)"

    %{
      name: "matmul #{m} #{k} #{n}",
      inputs: [first, second],
      python: python,
      out: ok(Ops.matmul(a, b))
    }
  end

  defp moved(type) do
    {data, x} = input(:x, type, [3, 4, 5])
    axes = Enum.shuffle([0, 1, 2])
    {pick, at} = input(:at, :s32, [3], <<2::32-native, 0::32-native, 1::32-native>>)

    Enum.random([
      {[data], "np.transpose(x, #{inspect(axes)})", fn -> Ops.transpose(x, axes: axes) end},
      {[data, pick], "np.take(x, at, axis=1)", fn -> Ops.gather(x, at, axis: 1) end},
      {[data], "np.concatenate([x, x], axis=1)", fn -> Ops.concatenate([x, x], axis: 1) end},
      {[data], "np.broadcast_to(x, (2, 3, 4, 5))", fn -> Ops.broadcast_to(x, [2, 3, 4, 5]) end},
      {[data], "np.flip(x, (0, 2))", fn -> Ops.reverse(x, axes: [0, -1]) end},
      {[data], "np.tile(x, (2, 1, 3))", fn -> Ops.tile(x, [2, 1, 3]) end},
      {[data], "np.stack([x, x], axis=2)", fn -> Ops.stack([x, x], axis: 2) end},
      {[data], "x[1:3, 0:4:3, 1:5:2]",
       fn -> Ops.slice(x, [1, 0, 1], [2, 4, 4], strides: [1, 3, 2]) end},
      {[data], "np.max(x, axis=(0, 2), keepdims=True)",
       fn -> Ops.reduce_max(x, axes: [0, 2], keep_axes: true) end},
      {[data], "np.minimum.accumulate(x, axis=1)", fn -> Ops.cumulative_min(x, axis: 1) end},
      {[data], "np.sort(x, axis=1, kind='stable')", fn -> Ops.sort(x, axis: 1) end},
      {[data], "np.argsort(x, axis=2, kind='stable').astype(np.int32)", fn -> Ops.argsort(x) end}
    ])
    |> then(fn {inputs, python, run} ->
      %{name: "moved", inputs: inputs, python: "out = " <> python, out: ok(run.())}
    end)
  end

  defp ok({:ok, buffer}), do: buffer

  ## Lines that Python reads

  defp line(%{name: name, inputs: inputs, python: python, out: out}) do
    inputs =
      for {name, type, shape, bytes} <- inputs,
          do: "('#{name}', '#{type}', #{shape(shape)}, '#{hex(bytes)}')"

    [
      "{'name': #{text(name)}, 'inputs': [",
      Enum.map(inputs, &[&1, ", "]),
      "], 'python': #{text(python)}, 'dtype': '#{out.dtype}', 'shape': #{shape(out.shape)}, 'out': '#{hex(Buffer.read!(out))}'}\n"
    ]
  end

  defp shape(lengths), do: "(" <> Enum.map_join(lengths, &"#{&1}, ") <> ")"
  defp hex(bytes), do: Base.encode16(bytes, case: :lower)

  defp text(text) do
    escaped =
      text
      |> String.replace("\\", "\\\\")
      |> String.replace("'", "\\'")
      |> String.replace("\n", "\\n")

    "'#{escaped}'"
  end
end
