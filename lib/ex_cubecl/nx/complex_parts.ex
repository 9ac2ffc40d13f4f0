if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ComplexParts do
    @moduledoc false
    # Complex numbers as pairs along a last axis, and the real and the imaginary parts of them as strided views.

    alias ExCubecl.{Buffer, Error, Kernel, View}
    alias ExCubecl.Nx.{Movement, Operand, Storage, Types}
    alias ExCubecl.Ops.{Lowering, Strided}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    require Kernel

    @same Kernel.kernel(fn x -> x end)

    ## Types

    @doc "The type of the parts: that of the widest operand or result, numbers excepted where the device has no wider type than theirs."
    def common(tensors, config) do
      wide = Enum.reject(tensors, &(&1.type == {:c, 64} or narrow?(Types.dtype(&1.type))))

      cond do
        wide == [] -> computed(:f32, config)
        Operand.computes?(config.device, :f64) -> {:ok, :f64}
        Enum.all?(wide, &number?/1) -> computed(:f32, config)
        true -> :host
      end
    end

    defp number?(%T{data: nil}), do: false

    defp number?(tensor) do
      case Storage.known_number(tensor) do
        {:ok, number} -> Operand.value_of?(number, :f32)
        :error -> false
      end
    end

    defp narrow?(nil), do: false
    defp narrow?(dtype), do: Types.exact?(dtype, :f32)

    @doc "The type of the parts of a complex type, if the device calculates with it."
    def dtype(type, config), do: type |> Types.storage() |> elem(0) |> computed(config)

    defp computed(dtype, config),
      do: if(Operand.computes?(config.device, dtype), do: {:ok, dtype}, else: :host)

    ## Pairs

    @doc "A view of pairs of a type."
    def pairs(%T{type: {:c, _}} = tensor, dtype, config),
      do: tensor |> Storage.view(config) |> Movement.cast(dtype)

    def pairs(%T{} = tensor, dtype, config) do
      shape = Tuple.to_list(tensor.shape) ++ [2]

      with {:ok, _} <- Operand.dtype(tensor),
           {:ok, real} <- tensor |> Storage.view(config) |> Movement.cast(dtype),
           {:ok, result} <- Buffer.zeros(shape, dtype, device: config.device),
           :ok <- Lowering.place(real, part(View.new(result), 0), :as_type),
           do: {:ok, View.new(result)}
    end

    @doc "The description of pairs as real numbers with one more axis."
    def real(%T{shape: shape, names: names} = tensor, dtype) do
      shape = List.to_tuple(Tuple.to_list(shape) ++ [2])
      %{tensor | type: Types.type(dtype), shape: shape, names: names ++ [nil]}
    end

    @doc "The pairs of a tensor as a real tensor with one more axis."
    def real_pairs(tensor, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, Storage.put(real(tensor, dtype), pairs, config)}
    end

    @doc "The tensor as one of a complex type."
    def as_complex(tensor, type, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, Storage.put(%{tensor | type: type}, pairs, config)}
    end

    @doc "The real (0) or the imaginary part (1) of a tensor as a real tensor."
    def part_tensor({%T{} = tensor, at}, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, Storage.put(%{tensor | type: Types.type(dtype)}, part(pairs, at), config)}
    end

    ## Kernels of parts

    @doc "The result of a kernel of parts that has real numbers."
    def one(name, kernel, values, out) do
      with {:ok, result} <-
             Lowering.map(Strided.named(kernel, name), values, dtype: Types.dtype(out.type)),
           do: Buffer.reshape(result, out.shape)
    end

    @doc "The complex numbers of two parts."
    def parts_joined(name, parts, out, config),
      do: joined(name, for(part <- parts, do: {@same, [part]}), out, config)

    @doc "The complex numbers whose parts are those of two kernels, each with its operands."
    def joined(name, parts, out, config) do
      {dtype, _} = Types.storage(out.type)

      with {:ok, result} <- Buffer.empty(Storage.shape(out), dtype, device: config.device),
           {:ok, _} <-
             parts
             |> Enum.with_index()
             |> Error.map(fn {{kernel, values}, at} ->
               kernel = Strided.named(kernel, name)

               with :ok <- Lowering.write(kernel, values, part(View.new(result), at)),
                    do: {:ok, nil}
             end),
           :ok <- Buffer.ensure_allocated(result),
           do: {:ok, result}
    end

    @doc "The real (0) or the imaginary parts (1) of pairs."
    def part(%{shape: shape} = pairs, at) do
      [zeros, ones] = for n <- [0, 1], do: Enum.map(shape, fn _ -> n end)
      one = List.replace_at(shape, -1, 1)

      pairs
      |> Strides.slice(List.replace_at(zeros, -1, at), one, ones)
      |> Strides.squeeze([length(shape) - 1])
    end

    @doc "Both parts of an operand of a kernel; `:host` if the type does not have its numbers."
    def operand(%T{type: {:c, _}} = tensor, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, [part(pairs, 0), part(pairs, 1)]}
    end

    # Nx calculates with 64-bit floats, too. Narrower ones that do not have the number are left to the host.
    def operand(tensor, dtype, config) do
      with {:ok, value} <- Operand.of(tensor, config) do
        if dtype == :f64 or Operand.value_of?(value, dtype) or match?(%{dtype: :f64}, value),
          do: {:ok, [Operand.cast(value, dtype), 0.0]},
          else: :host
      end
    end

    @doc "Both parts of a tensor as views, also of a real one."
    def both_parts(tensor, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, {part(pairs, 0), part(pairs, 1)}}
    end
  end
end
