if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Trips do
    @moduledoc false
    # Loops that count from a constant to a constant: how often they run.

    alias Nx.Defn.{Composite, Expr}
    alias Nx.Tensor, as: T

    @most 32
    @comparisons %{
      less: :<,
      less_equal: :<=,
      greater: :>,
      greater_equal: :>=,
      not_equal: :!=
    }

    @doc """
    The index of the counter of a loop and its value in each round, if there are few rounds. `initial` are nodes of a graph, `condition` and `body` expressions.
    """
    @spec of([Nx.Tensor.t()], Nx.Tensor.t(), term) :: {:ok, non_neg_integer, [integer]} | :error
    def of(initial, condition, body) do
      with {:ok, index, compare} <- compare(inner(condition)),
           %T{data: %Expr{op: :constant, args: [first]}} when is_integer(first) <-
             Enum.at(initial, index),
           {:ok, step} <- step([body] |> Composite.flatten_list() |> Enum.at(index), index),
           {:ok, rounds} <- rounds(first, step, compare, []),
           do: {:ok, index, rounds},
           else: (_ -> :error)
    end

    defp compare(%T{data: %Expr{op: op, args: [a, b]}}) when is_map_key(@comparisons, op) do
      case {inner(a), inner(b)} do
        {%T{data: %Expr{op: :parameter, args: [index]}},
         %T{data: %Expr{op: :constant, args: [last]}}} ->
          {:ok, index, &apply(Kernel, @comparisons[op], [&1, last])}

        {%T{data: %Expr{op: :constant, args: [last]}},
         %T{data: %Expr{op: :parameter, args: [index]}}} ->
          {:ok, index, &apply(Kernel, @comparisons[op], [last, &1])}

        _ ->
          :error
      end
    end

    defp compare(_other), do: :error

    defp step(next, index) do
      case inner(next) do
        %T{data: %Expr{op: op, args: [a, b]}} when op in [:add, :subtract] ->
          step(op, inner(a), inner(b), index)

        _ ->
          :error
      end
    end

    defp step(op, %T{data: %Expr{op: :parameter, args: [index]}}, b, index) do
      case b do
        %T{data: %Expr{op: :constant, args: [step]}} when is_integer(step) ->
          {:ok, if(op == :add, do: step, else: -step)}

        _ ->
          :error
      end
    end

    defp step(:add, a, %T{data: %Expr{op: :parameter, args: [index]}} = counter, index),
      do: step(:add, counter, a, index)

    defp step(_op, _a, _b, _index), do: :error

    # An unsigned counter does not become negative.
    defp rounds(now, step, compare, done) do
      cond do
        length(done) > @most or now < 0 -> :error
        compare.(now) -> rounds(now + step, step, compare, [now | done])
        true -> {:ok, Enum.reverse(done)}
      end
    end

    defp inner(%T{data: %Expr{op: :metadata, args: [%T{} = inner, _]}}), do: inner(inner)
    defp inner(other), do: other
  end
end
