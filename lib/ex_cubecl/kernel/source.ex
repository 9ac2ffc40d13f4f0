defmodule ExCubecl.Kernel.Source do
  @moduledoc """
  A kernel written in a language of the device, such as WGSL. `ExCubecl.Kernel.source/1` creates it and
  `ExCubecl.Kernel.run/3` runs it.
  """

  alias ExCubecl.{Buffer, DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{Handle, Pressure}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Waiting

  @enforce_keys [:ref, :entry]
  defstruct [:ref, :entry]

  @type t :: %__MODULE__{entry: String.t()}

  @axes {"a number, or one for each of x, y and z, as in {8, 8, 1}", 0xFFFF_FFFF}

  @doc false
  def new(opts) do
    with {:ok, opts} <- Arguments.options(opts, [:wgsl, :cuda, :entry, :workgroup]),
         :ok <- no_cuda(opts[:cuda]),
         {:ok, text} <- text(:wgsl, opts[:wgsl]),
         {:ok, entry} <- text(:entry, Keyword.get(opts, :entry, "main")),
         {:ok, threads} <- workgroup(opts[:workgroup]),
         {:ok, ref} <- Error.from_native(fn -> Native.source_new(text, entry, threads) end),
         do: {:ok, %__MODULE__{ref: ref, entry: entry}}
  end

  defp no_cuda(nil), do: :ok

  defp no_cuda(_source),
    do: Error.new(:unsupported, operation: "sources in CUDA C++", device: {:cuda, 0})

  defp text(name, text) do
    if is_binary(text) and String.valid?(text) and text != "",
      do: {:ok, text},
      else: Arguments.invalid(name, text, "a string")
  end

  defp workgroup(nil), do: {:ok, nil}
  defp workgroup(threads), do: axes(:workgroup, threads)

  defp axes(name, axes) do
    {expected, most} = @axes

    axes =
      case axes do
        x when is_integer(x) -> {x, 1, 1}
        {x, y} -> {x, y, 1}
        other -> other
      end

    with {x, y, z} <- axes, true <- Enum.all?([x, y, z], &(is_integer(&1) and &1 in 0..most)) do
      {:ok, {x, y, z}}
    else
      _ -> Arguments.invalid(name, axes, expected)
    end
  end

  @doc false
  def run(%__MODULE__{ref: ref, entry: entry}, buffers, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:groups]),
         {:ok, [first | _] = buffers} <- buffers(buffers, entry),
         {:ok, groups} <- axes(:groups, opts[:groups]) do
      bytes = Enum.sum(for %{shape: s, dtype: d} <- buffers, do: Shape.size(s) * DType.size!(d))

      # Entry points are any strings: all sources of a device share a counter.
      counter = Telemetry.launches(first.device, :wgsl)

      Telemetry.launch(bytes, first.device, entry, counter, fn ->
        refs = Enum.map(buffers, & &1.ref)

        Waiting.show(["preparing source ", entry, " on"], first.device, fn ->
          # The memory of a buffer that has none yet is allocated by the launch.
          Pressure.create(first.device, 0, fn -> Native.source_run(ref, refs, groups) end)
        end)
      end)
    end
  end

  defp buffers(buffers, entry) do
    case Handle.local_all(buffers) do
      {:ok, []} -> Arguments.invalid(:args, [], "at least one buffer")
      {:error, %{details: %{argument: :buffer}}} -> no_buffer(buffers, entry)
      result -> result
    end
  end

  # The arguments of a source have no names: the error gives the number of the binding.
  defp no_buffer(buffers, entry) do
    index = Enum.find_index(buffers, &match?({:error, _}, Buffer.check(&1)))
    details = %{kernel: entry, number: index + 1, name: "binding #{index}"}
    expected = "a buffer: a source takes no numbers"
    value = Enum.at(buffers, index)

    Error.new(
      :invalid_argument,
      Map.merge(details, %{argument: :buffer, value: value, expected: expected})
    )
  end
end
