defmodule ExCubecl.Arena.Options do
  @moduledoc false
  # The options of arenas, checked, and the unit that an arena counts in: elements of a type, or bytes.

  alias ExCubecl.{Device, DType, Error}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Error.Arguments

  @options [:size, :dtype, :extendable, :device]
  @unbounded 0xFFFF_FFFF_FFFF_FFFF

  @doc """
  The options as a map, from a size with options or from options with `size:`. `more` are the options that only some arenas have.

  `reserve` is the number of bytes that making the arena allocates.
  """
  @spec check(term, term, [atom]) :: {:ok, map} | {:error, Error.t()}
  def check(size_or_opts, opts, more \\ [])

  def check(size, opts, more) when not is_list(size) do
    if is_list(opts),
      do: check([size: size] ++ opts, [], more),
      else: Arguments.options(opts, known(more))
  end

  def check(opts, [], more) do
    with {:ok, opts} <- Arguments.options(opts, known(more)),
         {:ok, unit} <- unit(opts[:dtype]),
         {:ok, extendable} <-
           Arguments.boolean(:extendable, Keyword.get(opts, :extendable, true)),
         {:ok, size} <- size(Keyword.fetch(opts, :size), extendable),
         {:ok, bytes} <- Arguments.index(:size, size * bytes(unit)),
         {:ok, max} <- maximum(opts[:max]),
         {:ok, note} <- AllocOptions.from(Keyword.take(opts, AllocOptions.options())),
         {:ok, id} <- Device.resolve(opts[:device]) do
      made = %{id: id, unit: unit, size: size, note: note, max: max, extendable: extendable}
      {:ok, Map.merge(made, %{bytes: bytes, reserve: bytes})}
    end
  end

  def check(opts, more_opts, _more) do
    if Keyword.keyword?(opts),
      do: Arguments.invalid(:options, more_opts, "options once"),
      else: size({:ok, opts}, true)
  end

  defp known(more), do: @options ++ more ++ AllocOptions.options()

  @doc "The bytes of one unit."
  def bytes(:bytes), do: 1
  def bytes(dtype), do: DType.size!(dtype)

  @doc "Bytes in units, rounded up."
  def in_units(bytes, unit), do: div(bytes + bytes(unit) - 1, bytes(unit))

  defp unit(nil), do: {:ok, :bytes}
  defp unit(dtype), do: Arguments.dtype(dtype)

  defp size(:error, true), do: {:ok, 0}
  defp size(:error, false), do: Arguments.invalid(:size, nil, "a size: a fixed arena needs one")
  defp size({:ok, size}, _extendable) when is_integer(size) and size > 0, do: {:ok, size}
  defp size({:ok, size}, _extendable), do: Arguments.invalid(:size, size, "a positive integer")

  defp maximum(nil), do: {:ok, @unbounded}
  defp maximum(max) when is_integer(max) and max > 0, do: Arguments.index(:max, max)
  defp maximum(max), do: Arguments.invalid(:max, max, "a positive integer")
end
