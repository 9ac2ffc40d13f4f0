defmodule ExCubecl.NumpyCases do
  @moduledoc false
  # Runs programs on the device and writes them to a file with their results, which
  # `test/numpy/main.py` compares with NumPy.

  alias ExCubecl.{Buffer, DType, Kernel, NumpyData, NumpyOperations, TypedPrograms}

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
        case rem(n, 8) do
          0 -> conversion()
          1 -> kernel(TypedPrograms.indexed(types, exact))
          2 -> kernel(TypedPrograms.element_wise(types, exact))
          _ -> NumpyOperations.run(seed + div(n, 8) * 5 + rem(n, 8), types)
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
    bytes = TypedPrograms.elements(from)
    {data, buffer} = NumpyData.input(:x, from, [16], bytes)
    python = "out = cast(x, '#{from}', '#{to}')"
    %{name: "convert", inputs: [data], python: python, out: Buffer.convert!(buffer, to)}
  end

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
