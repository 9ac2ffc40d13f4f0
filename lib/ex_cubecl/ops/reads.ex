defmodule ExCubecl.Ops.Reads do
  @moduledoc false
  # The reads of a kernel as arguments and expressions.
  #
  # A read is `{name, mode, value}`: `:number`; `:flat` for a buffer that is read at the index of the invocation; `:one` for a buffer of a single element;
  # `:strided` for a view, which is read through its strides.

  alias ExCubecl.Ops.Index

  @type read :: {atom, :number | :flat | :one | :strided, term}

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
