defmodule ExCubecl.Pool.Options do
  @moduledoc false
  # The options of `ExCubecl.Pool.start_link/1`.

  alias ExCubecl.{Device, DType, Error, Shape}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Pool.SizeClass

  @options [:size, :shape, :dtype, :max, :device, :name]

  @doc "The checked options, as the native library takes them."
  @spec check(term) :: {:ok, map} | {:error, Error.t()}
  def check(opts) do
    with {:ok, opts} <- Arguments.options(opts, @options ++ AllocOptions.options()),
         {:ok, dtype} <- Arguments.dtype(Keyword.get(opts, :dtype, :u8)),
         {:ok, shape} <- shape(opts, dtype),
         {:ok, max} <- maximum(opts[:max], Shape.size(shape) * DType.size!(dtype)),
         {:ok, note} <- AllocOptions.from(Keyword.take(opts, AllocOptions.options())),
         {:ok, _} <- name(opts[:name]),
         {:ok, id} <- Device.resolve(opts[:device]),
         do: {:ok, %{id: id, dtype: dtype, shape: shape, max: max, note: note}}
  end

  defp shape(opts, dtype) do
    case {opts[:size], opts[:shape]} do
      {nil, nil} -> Arguments.invalid(:size, nil, "bytes as :size, or a :shape")
      {nil, shape} -> with({:ok, shape, _} <- filled(shape, dtype), do: {:ok, shape})
      {size, nil} -> flat(size, dtype, DType.size!(dtype))
      {size, _shape} -> Arguments.invalid(:size, size, "either :size or :shape, not both")
    end
  end

  defp filled(shape, dtype) do
    with {:ok, _, 0} <- Arguments.shape(shape, dtype),
         do: Arguments.invalid(:shape, shape, "at least one element")
  end

  defp flat(size, dtype, unit) when is_integer(size) and size > 0 and rem(size, unit) == 0 do
    with {:ok, size} <- Arguments.index(:size, size),
         {:ok, shape, _} <- Arguments.shape([div(size, unit)], dtype),
         do: {:ok, shape}
  end

  defp flat(size, _dtype, unit),
    do:
      Arguments.invalid(
        :size,
        size,
        "a positive number of bytes#{if unit > 1, do: ", a multiple of #{unit}"}"
      )

  defp maximum(nil, bytes), do: with({:ok, {_class, max}} <- SizeClass.of(bytes), do: {:ok, max})
  defp maximum(max, _bytes) when is_integer(max) and max > 0, do: Arguments.index(:max, max)
  defp maximum(max, _bytes), do: Arguments.invalid(:max, max, "a positive integer")

  # GenServer raises for other terms.
  defp name(name) when is_atom(name), do: {:ok, name}
  defp name({:global, _} = name), do: {:ok, name}
  defp name({:via, module, _} = name) when is_atom(module), do: {:ok, name}
  defp name(other), do: Arguments.invalid(:name, other, "a name as for GenServer.start_link/3")
end
