if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Constants do
    @moduledoc false
    # Operations whose operands are known while an expression is converted to a graph. Their results are those of Nx.BinaryBackend, which ExCubecl.Backend uses for
    # numbers, too.

    alias ExCubecl.Nx.ElementWise
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # The results of these have the same elements.
    @moves [:reshape, :squeeze, :broadcast, :transpose, :reverse]
    # Of functions of floats the host and the device have different last digits.
    @operations ElementWise.names() -- [:select, :clip, :pow, :atan2]
    @whole [:add, :subtract, :multiply, :bitwise_and, :bitwise_or, :bitwise_xor]
    @most 16

    @doc "Whether the elements of a captured tensor are worth to be known."
    @spec literal?(term) :: boolean
    def literal?(%T{data: %Nx.BinaryBackend{}, shape: shape}), do: Tuple.product(shape) <= @most
    def literal?(_other), do: false

    @doc """
    The number that all elements of the result of an operation are: `{:ok, number}` or `:error`. `literals` has the captured tensors whose elements are known, by
    the ids of their nodes.
    """
    @spec fold(atom, list, Nx.Tensor.t(), %{non_neg_integer => Nx.Tensor.t()}) ::
            {:ok, number} | :error
    def fold(op, [%T{data: %Expr{op: :constant, args: [number]}} | _], _t, _literals)
        when op in @moves,
        do: {:ok, number}

    def fold(
          :slice,
          [%T{data: %Expr{op: :captured, id: id}}, starts, lengths, strides],
          t,
          literals
        )
        when is_map_key(literals, id) do
      if Enum.all?(starts, &is_integer/1) and Tuple.product(t.shape) == 1,
        do: element(literals[id], starts) || sliced(t, literals[id], [starts, lengths, strides]),
        else: :error
    end

    def fold(
          op,
          [
            %T{type: {a_kind, _} = a_type, data: %Expr{op: :constant, args: [a]}},
            %T{type: {b_kind, _} = b_type, data: %Expr{op: :constant, args: [b]}}
          ],
          %T{type: {kind, _} = type},
          _literals
        )
        when op in @whole and kind in [:s, :u] and a_kind in [:s, :u] and b_kind in [:s, :u],
        do: {:ok, op |> whole(wrapped(a, a_type), wrapped(b, b_type)) |> wrapped(type)}

    def fold(op, args, %T{type: {kind, _}} = t, _literals)
        when op in @operations and kind in [:s, :u] and args != [] do
      if Enum.all?(args, &match?(%T{data: %Expr{op: :constant}}, &1)),
        do: calculated(op, args, t),
        else: :error
    end

    def fold(_op, _args, _t, _literals), do: :error

    # What Nx.BinaryBackend does with integers, of which a traced loop of random numbers has hundreds.
    defp whole(:add, a, b), do: a + b
    defp whole(:subtract, a, b), do: a - b
    defp whole(:multiply, a, b), do: a * b
    defp whole(:bitwise_and, a, b), do: Bitwise.band(a, b)
    defp whole(:bitwise_or, a, b), do: Bitwise.bor(a, b)
    defp whole(:bitwise_xor, a, b), do: Bitwise.bxor(a, b)

    defp wrapped(number, {:u, bits}) do
      <<wrapped::unsigned-size(bits)>> = <<number::size(bits)>>
      wrapped
    end

    defp wrapped(number, {:s, bits}) do
      <<wrapped::signed-size(bits)>> = <<number::size(bits)>>
      wrapped
    end

    # An element of a tensor of integers, at starts within its bounds.
    defp element(%T{type: {kind, bits}, shape: shape, data: %{state: binary}}, starts)
         when kind in [:s, :u] and bits >= 8 do
      lengths = Tuple.to_list(shape)

      if Enum.all?(Enum.zip(starts, lengths), fn {start, length} ->
           start in 0..(length - 1)//1
         end) do
        at = Enum.zip_reduce(starts, lengths, 0, fn start, length, at -> at * length + start end)
        before = div(at * bits, 8)
        <<_::binary-size(before), rest::binary>> = binary
        {:ok, first(rest, kind, bits)}
      end
    end

    defp element(_tensor, _starts), do: nil

    defp first(binary, :s, bits) do
      <<number::signed-native-size(bits), _::binary>> = binary
      number
    end

    defp first(binary, :u, bits) do
      <<number::unsigned-native-size(bits), _::binary>> = binary
      number
    end

    defp sliced(t, literal, args) do
      Nx.BinaryBackend |> apply(:slice, [%{t | data: nil}, literal | args]) |> number()
    end

    defp calculated(op, args, t) do
      [out | scalars] = for %T{} = tensor <- [t | args], do: %{tensor | shape: {}, names: []}

      numbers =
        for %T{data: %Expr{args: [number]}} = scalar <- scalars,
            do: Nx.BinaryBackend.constant(%{scalar | data: nil}, number, [])

      Nx.BinaryBackend |> apply(op, [%{out | data: nil} | numbers]) |> number()
    rescue
      # Nx raises for these operands: so does the step that is made.
      _error -> :error
    end

    defp number(tensor) do
      case Nx.to_number(Nx.BinaryBackend.reshape(%{tensor | shape: {}, names: []}, tensor)) do
        number when is_number(number) -> {:ok, number}
        _ -> :error
      end
    end

    @doc "The start of a slice that is a constant is an integer, within the bounds of the tensor."
    @spec starts(list, tuple, [pos_integer]) :: list
    def starts(starts, shape, lengths) do
      for {start, size, length} <- Enum.zip([starts, Tuple.to_list(shape), lengths]) do
        case start do
          %T{data: %Expr{op: :constant, args: [number]}} -> number |> max(0) |> min(size - length)
          other -> other
        end
      end
    end
  end
end
