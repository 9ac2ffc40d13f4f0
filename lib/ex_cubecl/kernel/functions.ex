defmodule ExCubecl.Kernel.Functions do
  @moduledoc false
  # Types the calls of built-in functions. Operations on two literals are folded here.

  import ExCubecl.Kernel.Types

  alias ExCubecl.Kernel.{BuiltIns, FloatFunctions, MixedSigns}

  @kernels FloatFunctions.names()

  @arithmetic ~w(add sub mul min max)a
  @comparisons ~w(eq ne lt le gt ge)a
  @bits ~w(band bor bxor shl shr)a
  @rounding ~w(round floor ceil trunc)a

  @doc """
  The typed call with the new state. For a function that is a kernel (`ExCubecl.Kernel.FloatFunctions`), the kernel, its typed arguments and the
  type of the result in place of the typed call.
  """
  def call(function, args, line, state) do
    case folded(function, args) do
      nil -> calculated(function, args, line, state)
      value -> {value, state}
    end
  end

  @doc "The value of an operation on literals, or `nil` if the device computes it."
  def folded(:neg, [{:number, n}]), do: {:number, -n}

  # A result that an Elixir float cannot hold is not folded.
  def folded(function, [{:number, a}, {:number, b}]) do
    fold(function, a, b)
  rescue
    ArithmeticError -> nil
  end

  def folded(_function, _args), do: nil

  defp fold(:add, a, b), do: {:number, a + b}
  defp fold(:sub, a, b), do: {:number, a - b}
  defp fold(:mul, a, b), do: {:number, a * b}
  defp fold(:divide, a, b) when b != 0, do: {:number, a / b}
  defp fold(:min, a, b), do: {:number, min(a, b)}
  defp fold(:max, a, b), do: {:number, max(a, b)}
  defp fold(:div, a, b) when is_integer(a) and is_integer(b) and b != 0, do: {:number, div(a, b)}
  defp fold(:rem, a, b) when is_integer(a) and is_integer(b) and b != 0, do: {:number, rem(a, b)}

  defp fold(function, a, b) when function in [:eq, :ne, :lt, :le, :gt, :ge] do
    value =
      case function do
        :eq -> a == b
        :ne -> a != b
        :lt -> a < b
        :le -> a <= b
        :gt -> a > b
        :ge -> a >= b
      end

    {:bool, {:bool, value}}
  end

  defp fold(_, _, _), do: nil

  defp calculated(:divide, [a, b], line, state),
    do: binary(:div, a, b, floating(merged(a, b, line, state), line), state)

  defp calculated(function, [a, b], line, state) when function in @arithmetic,
    do: binary(function, a, b, number(merged(a, b, line, state), function, line), state)

  defp calculated(function, [a, b], line, state) when function in @comparisons do
    case MixedSigns.comparison(function, a, b) do
      {kernel, args} -> {{:kernel, kernel, args, :bool}, state}
      nil -> compared(function, a, b, line, state)
    end
  end

  defp calculated(function, [a, b], line, state) when function in @bits or function == :div,
    do: binary(function, a, b, integer(merged(a, b, line, state), function, line), state)

  defp calculated(:rem, [a, b], line, state) do
    case number(merged(a, b, line, state), :rem, line) do
      :f64 -> kernel(:rem, [a, b], :f64, state)
      type -> binary(:rem, a, b, type, state)
    end
  end

  defp calculated(function, [a, b], line, state) when function in @kernels,
    do: kernel(function, [a, b], floating(merged(a, b, line, state), line), state)

  defp calculated(function, [a, b], line, state) when function in [:and, :or] do
    with {:bool, a} <- a, {:bool, b} <- b do
      {{:bool, {:binary, function, a, b}}, state}
    else
      _ -> type_error(line, "#{function} joins comparisons, not numbers")
    end
  end

  defp calculated(:not, [{:bool, tree}], _line, state), do: {{:bool, {:unary, :not, tree}}, state}

  defp calculated(:not, _, line, _state),
    do: type_error(line, "not is of a comparison, not of a number")

  defp calculated(function, [a], line, state) do
    {{type, tree} = typed, state} = defaulted({a, state})

    cond do
      type == :bool ->
        type_error(line, "#{BuiltIns.written(function)} is of a number, not of a comparison")

      function == :neg ->
        negative(type, tree, state)

      function == :abs and unsigned?(type) ->
        {typed, state}

      function in @rounding and not floating?(type) ->
        {typed, state}

      function == :abs ->
        {{type, {:unary, :abs, tree}}, state}

      function in [:bnot, :count_ones] ->
        {{integer(type, function, line), {:unary, function, tree}}, state}

      true ->
        of_float(function, typed, line, state)
    end
  end

  defp negative(type, tree, state) do
    if unsigned?(type),
      do: {{type, {:binary, :sub, {:const, type, 0}, tree}}, state},
      else: {{type, {:unary, :neg, tree}}, state}
  end

  defp compared(function, a, b, line, state) do
    type = merged(a, b, line, state)
    type = if type == :bool, do: :u8, else: type
    {{_, tree}, state} = binary(function, a, b, type, state)
    {{:bool, tree}, state}
  end

  # Functions of 16-bit floats are calculated with 32 bits and rounded once.
  defp kernel(function, args, type, state) do
    wide = if type in [:f16, :bf16], do: :f32, else: type

    {args, state} =
      Enum.map_reduce(args, state, fn typed, state ->
        {tree, state} = coerce(typed, wide, state)
        {{wide, tree}, state}
      end)

    {{:kernel, FloatFunctions.kernel(function, wide), args, type}, state}
  end

  defp of_float(function, {type, _} = typed, line, state) when function in @kernels,
    do: kernel(function, [typed], floating(type, line), state)

  defp of_float(function, {type, _} = typed, line, state) do
    type = floating(type, line)
    {tree, state} = coerce(typed, type, state)
    result = if function in [:nan?, :infinite?], do: :bool, else: type
    {{result, {:unary, function, tree}}, state}
  end

  defp binary(function, a, b, type, state) do
    {a, state} = coerce(a, type, state)
    {b, state} = coerce(b, type, state)
    {{type, {:binary, function, a, b}}, state}
  end

  defp floating(type, _line) when floating?(type), do: type

  defp floating(:bool, line),
    do: type_error(line, "arithmetic is of numbers: use if c do 1 else 0 end")

  defp floating(_, _line), do: :f32

  defp number(:bool, function, line),
    do:
      type_error(
        line,
        "#{BuiltIns.written(function)} is of numbers, not of comparisons: use if c do 1 else 0 end"
      )

  defp number(type, _function, _line), do: type

  defp integer(type, function, line) when type in [:bool, :f16, :bf16, :f32, :f64],
    do:
      type_error(
        line,
        "#{BuiltIns.written(function)} is of integers, not of #{type}: use cast(x, :s32)"
      )

  defp integer(type, _function, _line), do: type
end
