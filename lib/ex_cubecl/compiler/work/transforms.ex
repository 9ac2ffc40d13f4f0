if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Work.Transforms do
    @moduledoc false
    # The work memory of Fourier transforms. The transform is copied without the numbers that are almost 0; those of real numbers are copied once more, without
    # their second half.

    alias ExCubecl.DType
    alias ExCubecl.Nx.Types
    alias ExCubecl.Ops.Fourier
    alias Nx.Tensor, as: T

    @names [:fft, :ifft, :rfft, :irfft, :fft2, :ifft2]

    def names, do: @names

    @doc "The work memory of a transform of a tensor with the options of the backend's callback. `copied?` tells whether its elements are copied first."
    @spec bytes(atom, T.t(), keyword, T.t(), boolean) :: non_neg_integer
    def bytes(name, tensor, opts, node, copied?) do
      {dtype, _} = Types.storage(node.type)
      number = 2 * DType.size!(dtype)
      copies = if copied?, do: 2 * number * Nx.size(tensor.shape), else: 0

      transforms =
        for {length, count} <- lengths(name, tensor, opts),
            do: {Fourier.work(length, count, dtype), number * length * count}

      copies + bytes(name, transforms, number * count(tensor))
    end

    # In a 2-D transform, the result of the transform of the first axis is the operand of the second.
    defp bytes(_name, [{first, between}, {second, result}], _given),
      do: between + Enum.max([first, second, result])

    # The pairs of the conjugates are made first.
    defp bytes(:irfft, [{work, result}], given), do: given + work + 2 * result
    defp bytes(:rfft, [{work, result}], _given), do: result + max(work, result)
    defp bytes(_name, [{work, result}], _given), do: max(work, result)

    defp count(%T{shape: shape}), do: Tuple.product(shape)

    # The lengths of the transforms, each with the number of its transforms.
    defp lengths(name, %T{shape: shape}, opts) when name in [:fft2, :ifft2] do
      rank = tuple_size(shape)
      [first, second] = for axis <- opts[:axes] || [-2, -1], do: Integer.mod(axis, rank)
      [n, m] = opts[:lengths] || [elem(shape, first), elem(shape, second)]
      others = div(Tuple.product(shape), max(elem(shape, first) * elem(shape, second), 1))
      [{m, others * elem(shape, first)}, {n, others * m}]
    end

    defp lengths(name, %T{shape: shape}, opts) do
      length = elem(shape, Integer.mod(opts[:axis] || -1, tuple_size(shape)))
      given = if name == :irfft, do: 2 * (length - 1), else: length
      [{max(opts[:length] || given, 1), div(Tuple.product(shape), max(length, 1))}]
    end
  end
end
