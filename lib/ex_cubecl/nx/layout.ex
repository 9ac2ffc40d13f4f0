if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Layout do
    @moduledoc false
    # Callbacks that create elements, move them, or change their type. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, DType, Kernel, Ops}
    alias ExCubecl.Nx.{Operand, Storage, Types}
    alias Nx.Tensor, as: T

    require Kernel

    @floats [:f16, :bf16, :f32, :f64]

    def names,
      do:
        [:broadcast, :transpose, :concatenate, :stack, :slice, :reverse, :pad, :put_slice] ++
          [:as_type]

    def run(:broadcast, [out, tensor, shape, axes], config) do
      with {:ok, buffer} <- buffer(tensor, config) do
        lengths = Enum.zip(axes, buffer.shape)

        from =
          for {_, axis} <- axes(shape), do: lengths |> List.keyfind(axis, 0, {axis, 1}) |> elem(1)

        with {:ok, buffer} <- Buffer.reshape(buffer, from),
             do: Ops.broadcast_to(buffer, out.shape)
      end
    end

    def run(:transpose, [_out, tensor, axes], config) do
      with {:ok, buffer} <- buffer(tensor, config), do: Ops.transpose(buffer, axes: axes)
    end

    def run(:concatenate, [out, tensors, axis], config) do
      with {:ok, buffers} <- cast_all(tensors, out, config),
           do: Ops.concatenate(buffers, axis: axis)
    end

    def run(:stack, [out, tensors, axis], config) do
      with {:ok, buffers} <- cast_all(tensors, out, config), do: Ops.stack(buffers, axis: axis)
    end

    def run(:slice, [out, tensor, starts, lengths, strides], config) do
      with {:ok, buffer} <- buffer(tensor, config) do
        parts =
          for {start, length, stride, size} <- Enum.zip([starts, lengths, strides, buffer.shape]),
              do: {clamped(start, size - length), length, stride, size}

        slice(buffer, Tuple.to_list(out.shape), parts)
      end
    end

    def run(:reverse, [_out, tensor, axes], config) do
      with {:ok, buffer} <- buffer(tensor, config), do: Ops.reverse(buffer, axes: axes)
    end

    def run(:pad, [out, tensor, value, padding], config) do
      with {:ok, [buffer]} <- cast_all([tensor], out, config),
           {:ok, number} <- Storage.known_number(value) do
        Ops.pad(buffer, Operand.cast(number, buffer.dtype), padding)
      else
        :error -> :host
        other -> other
      end
    end

    def run(:put_slice, [out, tensor, starts, source], config) do
      with {:ok, [buffer, source]} <- cast_all([tensor, source], out, config) do
        sizes = Enum.zip([starts, buffer.shape, source.shape])
        starts = for {start, size, length} <- sizes, do: clamped(start, size - length)
        Ops.put_slice(buffer, starts, source)
      end
    end

    def run(:as_type, [out, tensor], config) do
      with {:ok, buffer} <- buffer(tensor, config),
           {:ok, dtype} <- Operand.dtype(out),
           do: cast(buffer, dtype, config)
    end

    defp buffer(%T{type: type} = tensor, config),
      do: if(Types.dtype(type), do: {:ok, Storage.buffer(tensor, config)}, else: :host)

    defp axes({}), do: []
    defp axes(shape), do: for(axis <- 0..(tuple_size(shape) - 1), do: {elem(shape, axis), axis})

    ## Slices

    defp clamped(%T{} = start, most), do: start |> Nx.to_number() |> clamped(most)
    defp clamped(start, most), do: start |> max(0) |> min(most)

    # A slice that is contiguous is a view.
    defp slice(buffer, shape, parts) do
      if contiguous?(parts) do
        steps = parts |> Enum.map(&elem(&1, 3)) |> steps()

        offset =
          Enum.sum(for {{start, _, _, _}, step} <- Enum.zip(parts, steps), do: start * step)

        Buffer.view(buffer, offset, shape)
      else
        [starts, lengths, strides] = for place <- 0..2, do: Enum.map(parts, &elem(&1, place))
        Ops.slice(buffer, starts, lengths, strides: strides)
      end
    end

    # Axes of length 1, then at most one that is not whole, then whole ones.
    defp contiguous?(parts) do
      case Enum.drop_while(parts, fn {_, length, _, _} -> length == 1 end) do
        [] ->
          true

        [{_, _, stride, _} | rest] ->
          stride == 1 and Enum.all?(rest, &match?({0, size, 1, size}, &1))
      end
    end

    defp steps(shape) do
      {steps, _} = shape |> Enum.reverse() |> Enum.map_reduce(1, &{&2, &1 * &2})
      Enum.reverse(steps)
    end

    ## Types

    defp cast_all(tensors, %T{} = out, config) do
      with {:ok, dtype} <- Operand.dtype(out) do
        Enum.reduce_while(Enum.reverse(tensors), {:ok, []}, fn tensor, {:ok, done} ->
          with {:ok, buffer} <- buffer(tensor, config),
               {:ok, buffer} <- cast(buffer, dtype, config) do
            {:cont, {:ok, [buffer | done]}}
          else
            other -> {:halt, other}
          end
        end)
      end
    end

    # Nx cuts off the digits that :bf16 does not have, and lets finite floats wrap around in integer types.
    defp cast(%{dtype: dtype} = buffer, dtype, _config), do: Buffer.clone(buffer)

    defp cast(%{dtype: from} = buffer, to, config) do
      cond do
        Types.exact?(from, to) -> Buffer.convert(buffer, to)
        to == :bf16 -> :host
        to in @floats or from not in @floats -> Buffer.convert(buffer, to)
        from == :f64 or DType.size!(to) == 8 -> :host
        Operand.computes?(config.device, :s64) -> wrapped(buffer, to)
        true -> :host
      end
    end

    # From 2^63 on, floats of 32 bits are multiples of 2^40, of which types of up to 32 bits keep nothing.
    @wrap Kernel.kernel(fn x, whole, most, least ->
            edge = if x > 0.0, do: most, else: least
            inside = if abs(x) < 9.223372036854775808e18, do: whole, else: cast(0, :s64)
            if infinite?(x), do: edge, else: inside
          end)

    defp wrapped(buffer, to) do
      most = Kernel.Types.number_as(:infinity, to)
      least = Kernel.Types.number_as(:neg_infinity, to)

      with {:ok, whole} <- Buffer.convert(buffer, :s64),
           {:ok, most} <- Buffer.full([1], :s64, most, device: buffer.device),
           {:ok, least} <- Buffer.full([1], :s64, least, device: buffer.device),
           {:ok, result} <- Kernel.run(@wrap, [buffer, whole, most, least]),
           do: Buffer.convert(result, to)
    end

    ## Creation

    @doc "A buffer of 0, 1, 2, ... in row-major order, or along an axis."
    def iota(%T{shape: shape} = out, axis, config) do
      with {:ok, dtype} when dtype != :bf16 <- Operand.dtype(out),
           {:ok, line} <- line(shape, axis, dtype, config) do
        if axis, do: Ops.broadcast_to(line, shape), else: {:ok, line}
      else
        {:ok, :bf16} -> :host
        other -> other
      end
    end

    defp line(shape, nil, dtype, config),
      do: Buffer.iota(shape, dtype, Storage.buffer_options(config))

    defp line(shape, axis, dtype, config) do
      ones = List.duplicate(1, tuple_size(shape))
      length = elem(shape, axis)

      with {:ok, line} <- Buffer.iota([length], dtype, Storage.buffer_options(config)),
           do: Buffer.reshape(line, List.replace_at(ones, axis, length))
    end

    @doc "A buffer of identity matrices."
    def eye(%T{shape: shape} = out, config) do
      rank = tuple_size(shape)

      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, rows} <- line(shape, rank - 2, :s32, config),
           {:ok, columns} <- line(shape, rank - 1, :s32, config),
           {:ok, matrix} <- Ops.equal(rows, columns),
           {:ok, matrix} <- Buffer.convert(matrix, dtype),
           do: Ops.broadcast_to(matrix, shape)
    end
  end
end
