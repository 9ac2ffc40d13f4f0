if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Pieces do
    @moduledoc false
    # `concatenate`, `stack`, `pad` and `put_slice` as element-wise operations: each element of the result is one of one operand, which the kernel selects by
    # the coordinates and reads in place. A read out of the bounds of an operand gives 0, which is not selected.

    alias ExCubecl.{Device, Shape}
    alias ExCubecl.Compiler.Fusion.Stub
    alias ExCubecl.Compiler.Graph
    alias ExCubecl.Nx.{Expression, Operand}
    alias ExCubecl.Ops.Index
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @typedoc """
    An operand, the moves from its shape to that of the result, and where the result has its elements: the first coordinate along an axis, and the one after
    the last. Where pieces overlap, the first of them is chosen; the last piece has all other elements.
    """
    @type piece ::
            {Nx.Tensor.t(), list, [{non_neg_integer, non_neg_integer, non_neg_integer}]}

    # The most operands: a kernel reads all of them for each element.
    @most 8
    # The most elements of a result of `pad` and `put_slice` on a CPU, which then copies rows faster than it calculates coordinates: `pad` and an addition take 21 ms in
    # one kernel and 11 in two for 2 million elements, 6 in both for 0.5 million.
    @copied 524_288
    # Types of 16 bits: the device would round a number to f32 first, and then to these.
    @narrow [:f16, :bf16]

    @doc "The names of the operations."
    def names, do: [:concatenate, :stack, :pad, :put_slice]

    @doc "The pieces of a node, or `nil` if a kernel cannot choose between them. `config` is that of `ExCubecl.Backend`."
    @spec of(Nx.Tensor.t(), map) :: [piece] | nil
    def of(%T{data: %Expr{op: op, args: args}} = expr, config) do
      stubs = Graph.operands(expr)

      if length(stubs) <= @most and Enum.all?(stubs, &typed?(&1, Stub.dtype(expr), config)) and
           not copied?(op, Stub.shape(expr), config),
         do: pieces(op, args, Stub.shape(expr))
    end

    # Most elements are those of one operand, in its order.
    defp copied?(op, shape, config) when op in [:pad, :put_slice],
      do: Shape.size(shape) > @copied and Device.cpu?(config.device)

    defp copied?(_op, _shape, _config), do: false

    # A number is a constant of the kernel, which is converted to the type of the result.
    defp typed?(stub, dtype, config) do
      case Stub.number(stub, config) do
        nil -> Stub.dtype(stub) == dtype
        :nan -> false
        number -> Stub.dtype(stub) == dtype or (is_integer(number) and dtype not in @narrow)
      end
    end

    defp pieces(:concatenate, [tensors, axis], shape),
      do: along(tensors, axis, shape, fn _ -> [] end)

    defp pieces(:stack, [tensors, axis], shape) do
      along(tensors, axis, shape, fn tensor ->
        [{:reshape, List.insert_at(Stub.shape(tensor), axis, 1)}]
      end)
    end

    defp pieces(:pad, [x, value, config], shape) do
      if Enum.all?(config, &match?({_, _, 0}, &1)) do
        lows = for {low, _, _} <- config, do: low
        bounds = bounds(lows, Stub.shape(x), shape)
        [{x, [{:place, lows, shape}], bounds}, {value, [{:broadcast, shape}], []}]
      end
    end

    defp pieces(:put_slice, [x, starts, source], shape) do
      if Enum.all?(starts, &is_integer/1) do
        lengths = Stub.shape(source)

        starts =
          for {start, size, length} <- Enum.zip([starts, shape, lengths]),
              do: start |> max(0) |> min(size - length)

        [{source, [{:place, starts, shape}], bounds(starts, lengths, shape)}, {x, [], []}]
      end
    end

    defp along(tensors, axis, shape, moves) do
      zeros = Enum.map(shape, fn _ -> 0 end)

      {pieces, _end} =
        Enum.map_reduce(tensors, 0, fn tensor, start ->
          moves = moves.(tensor)
          length = if moves == [], do: Enum.at(Stub.shape(tensor), axis), else: 1
          starts = List.replace_at(zeros, axis, start)
          piece = {tensor, moves ++ [{:place, starts, shape}], [{axis, 0, start + length}]}
          {piece, start + length}
        end)

      {last, first} = List.pop_at(pieces, -1)
      first ++ [put_elem(last, 2, [])]
    end

    # Along the axes on which the piece is not as long as the result.
    defp bounds(starts, lengths, shape) do
      for {{start, length, size}, axis} <- Enum.with_index(Enum.zip([starts, lengths, shape])),
          start > 0 or start + length < size,
          do: {axis, max(start, 0), min(start + length, size)}
    end

    @doc "The operands that are read at the place of the result."
    @spec aligned([piece]) :: [Nx.Tensor.t()]
    def aligned(pieces), do: for({stub, [], _} <- pieces, do: stub)

    @doc "The layout of the coordinates along an axis of a shape, as that of `ExCubecl.Compiler.Fusion.Node.layout/1`."
    def coordinates(axis, shape) do
      strides = for at <- 0..(length(shape) - 1)//1, do: if(at == axis, do: 1, else: 0)
      %{offset: 0, shape: shape, strides: strides}
    end

    @doc "A number in the type of the result."
    def number(number, dtype), do: {:cast, dtype, Expression.number(Operand.cast(number, dtype))}

    @doc "Whether the coordinates, `{expression, first, end, length of the axis}`, are inside of a piece."
    def inside?(coordinates) do
      coordinates
      |> Enum.flat_map(fn {at, first, last, size} ->
        low = if first > 0, do: [Index.call(:ge, at, Index.number(first))], else: []
        high = if last < size, do: [Index.call(:lt, at, Index.number(last))], else: []
        low ++ high
      end)
      |> Enum.reduce(&Index.call(:and, &2, &1))
    end
  end
end
