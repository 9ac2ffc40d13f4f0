defmodule ExCubecl.Ops.Operands do
  @moduledoc false
  # How a kernel reads its operands: an element-wise operation in the order of its result, a reduction along kept and reduced axes.
  #
  # A read is `{name, mode, value}`: `:number`; `:flat` for a buffer that is read at the index of the invocation; `:one` for a buffer of a single element;
  # `:strided` for a view, which is read through its strides.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Ops.{Index, View}

  @type read :: {atom, :number | :flat | :one | :strided, term}

  @doc "The operands, with a view in place of each buffer. Terms that are neither are left to the checks of a launch."
  def views(operands) do
    Error.map(operands, fn
      %View{} = view -> {:ok, view}
      %Buffer{} = buffer -> with {:ok, buffer} <- Handle.local(buffer), do: {:ok, View.of(buffer)}
      other -> {:ok, other}
    end)
  end

  @doc "The shapes of the views."
  def shapes(operands), do: for(%View{shape: shape} <- operands, do: shape)

  @doc "The reads of operands by name, for a result of a shape; with `flat?` false, none is `:flat`."
  @spec reads([atom], [term], [non_neg_integer], boolean) :: {:ok, [read]} | {:error, Error.t()}
  def reads(names, operands, shape, flat? \\ true) do
    names |> Enum.zip(operands) |> Error.map(&read(&1, shape, flat?))
  end

  defp read({name, %View{} = view}, shape, flat?) do
    cond do
      flat? and view.shape == shape and View.contiguous?(view) -> in_buffer(name, :flat, view)
      Shape.size(view.shape) == 1 -> in_buffer(name, :one, view)
      true -> {:ok, {name, :strided, View.broadcast(view, shape)}}
    end
  end

  defp read({name, other}, _shape, _flat?), do: {:ok, {name, :number, other}}

  defp in_buffer(name, mode, view),
    do: with({:ok, buffer} <- View.buffer(view), do: {:ok, {name, mode, buffer}})

  @doc "The operand of a read, as the argument of a kernel."
  def argument({name, :strided, view}), do: {name, view.buffer}
  def argument({name, _mode, value}), do: {name, value}

  @doc "The names and views of the strided reads."
  def strided(reads), do: for({name, :strided, view} <- reads, do: {name, view})

  @doc "The expression that reads an operand; `index` has the index expressions of strided operands by name."
  def expression({name, :strided, _view}, index), do: {:at, 0, name, Map.fetch!(index, name)}
  def expression({name, :one, _buffer}, _index), do: {:at, 0, name, {:number, 0}}
  def expression({name, _mode, _value}, _index), do: Index.var(name)

  @doc "The application of an element-wise kernel to expressions, with an optional cast of each, and of the result."
  def apply(op, expressions, as, dtype),
    do: cast({:inline, op.parsed, Enum.map(expressions, &cast(&1, as))}, dtype)

  defp cast(expression, nil), do: expression
  defp cast(expression, dtype), do: {:cast, dtype, expression}
end
