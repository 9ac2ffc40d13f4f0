defmodule ExCubecl.Ops.Selection do
  @moduledoc false
  # Lowers an element-wise read at indices that buffers hold. Gathers read a tensor at the indices of the caller, scatters read the
  # updates at the index of the one that an element gets.

  alias ExCubecl.{Buffer, DType, Error, Kernel, View}
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{ComputeType, Index, Indices, Operands, Strided, Target}
  alias ExCubecl.View.Bits

  require Kernel

  @same Kernel.kernel(fn x -> x end)
  @axes 0..63
  @names Enum.map(@axes, &:"at#{&1}")

  @typedoc """
  A view of indices, which is broadcast to the result, with the length and the stride of the axis of the source that they address.
  """
  @type index :: {View.t(), non_neg_integer, integer}

  @doc """
  A buffer of a shape. Each element is that of `source`, a view of this shape whose strides along the addressed axes are 0, moved by the indices;
  where one is out of bounds, it is that of `default`, a view that is broadcast, or a number. `name` is the operation that errors and telemetry show.
  """
  @spec run(atom, [non_neg_integer], View.t(), [index], View.t() | number, Target.into()) ::
          {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def run(name, shape, source, indices, default \\ 0, into \\ nil) do
    case as_bits(source, default) do
      {:ok, bits, other} -> moved(name, bits, indices, other, source)
      :no -> calculated(name, shape, source, indices, default, into)
      error -> error
    end
  end

  # Elements of one 64-bit type are moved as words if the device has no integers of this width. The bits of the number 0 are 0.
  defp as_bits(%{dtype: dtype} = source, default) do
    with true <- DType.size!(dtype) == 8 and type(source, default) == dtype,
         {:ok, %{dtype: other} = bits} when other != dtype <- Bits.of(source),
         {:ok, default} <- default_bits(default) do
      {:ok, bits, default}
    else
      {:error, error} -> {:error, error}
      _ -> :no
    end
  end

  defp default_bits(%View{} = view), do: Bits.of(view)
  defp default_bits(number) when number == 0, do: {:ok, 0}
  defp default_bits(_number), do: :no

  defp moved(name, bits, indices, default, source) do
    # A last axis of two words, or none.
    words = if length(bits.shape) > length(source.shape), do: [1], else: []
    width = length(words) + 1

    indices =
      for {at, length, stride} <- indices do
        strides = at.strides ++ Enum.map(words, fn _ -> 0 end)
        {%{at | shape: at.shape ++ words, strides: strides}, length, width * stride}
      end

    with {:ok, result} <- launch(name, bits.shape, bits, indices, default, []),
         do: Bits.back(result, source)
  end

  defp calculated(name, shape, source, indices, default, into) do
    with {:ok, moved} <- ComputeType.widened(source),
         {:ok, other} <- widened(default),
         target = Target.option(into, shape, type(moved, other), moved.device),
         {:ok, result} <- launch(name, shape, moved, indices, other, target),
         do: ComputeType.converted(result, type(source, default))
  end

  defp widened(%View{} = view), do: ComputeType.widened(view)
  defp widened(number), do: {:ok, number}

  defp type(source, %View{dtype: dtype}), do: Types.mix(source.dtype, dtype)
  defp type(source, _number), do: source.dtype

  defp launch(name, shape, source, indices, default, target) do
    names = Enum.take(@names, length(indices))
    operands = [default | Enum.map(indices, &elem(&1, 0))]

    with {:ok, reads} <- Operands.reads([:default | names], operands, shape) do
      indexed = Strided.indexed(Operands.strided(reads) ++ [source: source], shape)
      [default_read | index_reads] = reads

      parts =
        for {read, {view, length, stride}} <- Enum.zip(index_reads, indices),
            do: part(read, view.dtype, length, stride, indexed.index)

      element = {:at, 0, :source, Enum.reduce(parts, indexed.index.source, &advanced/2)}
      default = Operands.expression(default_read, indexed.index)

      result = {:if, 0, Indices.all(Enum.map(parts, & &1.inside)), element, default}

      args =
        [source: source.buffer] ++
          Enum.map(reads, &Operands.argument/1) ++
          indexed.args ++ Enum.flat_map(parts, & &1.args)

      statements = indexed.statements ++ Enum.map(parts, & &1.statement)
      key = {:select, indexed.key, elem(default_read, 1), Enum.map(parts, & &1.class)}
      op = Strided.named(@same, name)
      {kernel, args} = Strided.kernel(op, key, args, [], {statements, result})
      Strided.run(kernel, args, [shape: shape] ++ target)
    end
  end

  # An index is read once, into a variable.
  defp part({name, _, _} = read, dtype, length, stride, index) do
    [at, n, s] = for what <- [:index, :length, :stride], do: Index.name(name, what)

    %{
      statement: Index.let(at, Indices.widened(Operands.expression(read, index), dtype)),
      inside: Indices.inside(Index.var(at), dtype, Index.var(n)),
      move: Index.call(:mul, Index.unsigned(Index.var(at)), Index.var(s)),
      args: [{n, length}, {s, Index.wrapped(stride)}],
      class: {dtype, elem(read, 1)}
    }
  end

  defp advanced(%{move: move}, at), do: Index.call(:add, at, move)
end
