if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Complex do
    @moduledoc false
    # Callbacks on complex numbers, which are pairs along a last axis: each part of the result is a kernel of the parts of the operands, which
    # are strided views. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Error, View}

    alias ExCubecl.Nx.{
      ComplexFunctions,
      ComplexKernels,
      Dot,
      Movement,
      Operand,
      Reduction,
      Storage,
      Types
    }

    alias ExCubecl.Ops.{Lowering, Strided}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    @functions ComplexFunctions.names()

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:as_type, :sum, :dot] ++ @functions ++ ComplexKernels.names()

    @doc "Whether a callback is one of these, with complex numbers among its operands or results."
    def run?(name, [out | _], tensors),
      do: name in names() and Enum.any?([out | tensors], &match?(%T{type: {:c, _}}, &1))

    def run(:as_type, [%T{type: {:c, _} = type}, tensor], config) do
      with {:ok, dtype} <- dtype(type, config), do: pairs(tensor, dtype, config)
    end

    def run(:as_type, _args, _config), do: :host

    # A sum has the pairs of the sums of both parts.
    def run(:sum, [%T{type: type} = out, tensor, opts], config) do
      with {:ok, dtype} <- dtype(type, config),
           {:ok, pairs} <- pairs(tensor, dtype, config) do
        axes = opts[:axes] || Enum.to_list(0..(tuple_size(tensor.shape) - 1)//1)
        pairs = Storage.put(real(tensor, dtype), pairs, config)
        Reduction.run(:sum, [real(out, dtype), pairs, Keyword.put(opts, :axes, axes)], config)
      end
    end

    def run(:dot, [out, x, x_axes, x_batch, y, y_axes, y_batch], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, [a, b, c, d]} <-
             Error.map([{x, 0}, {x, 1}, {y, 0}, {y, 1}], &part_tensor(&1, dtype, config)),
           product = &product(&1, &2, {out, x_axes, x_batch, y_axes, y_batch}, dtype, config),
           {:ok, [ac, bd, ad, bc]} <-
             Error.map([{a, c}, {b, d}, {a, d}, {b, c}], fn {x, y} -> product.(x, y) end) do
        [difference, total] = ComplexKernels.sums()
        joined(:dot, [{difference, [ac, bd]}, {total, [ad, bc]}], out, config)
      end
    end

    def run(name, [out, tensor], config) when name in @functions do
      with {:ok, :f32} <- common([out, tensor], config),
           {:ok, [a, b]} <- operand(tensor, :f32, config),
           {:ok, parts} <- ComplexFunctions.parts(name, a, b) do
        joined(name, parts, out, config)
      else
        {:ok, :f64} -> :host
        other -> other
      end
    end

    def run(name, [out | tensors], config) do
      with {:ok, dtype} <- common([out | tensors], config),
           {:ok, operands} <- Error.map(tensors, &operand(&1, dtype, config)) do
        values = Enum.concat(operands)

        parts = ComplexKernels.parts(name)

        case for {kernel, at} <- parts, do: {kernel, Enum.map(at, &Enum.at(values, &1))} do
          [{kernel, values}] -> one(name, kernel, values, out)
          both -> joined(name, both, out, config)
        end
      end
    end

    defp product(x, y, {out, x_axes, x_batch, y_axes, y_batch}, dtype, config) do
      out = %{out | type: Types.type(dtype)}
      Dot.run(:dot, [out, x, x_axes, x_batch, y, y_axes, y_batch], config)
    end

    ## Element by element

    defp one(name, kernel, values, out) do
      with {:ok, result} <-
             Lowering.map(Strided.named(kernel, name), values, dtype: Types.dtype(out.type)),
           do: Buffer.reshape(result, out.shape)
    end

    defp joined(name, parts, out, config) do
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

    # The real (0) or the imaginary parts (1) of pairs.
    defp part(%{shape: shape} = pairs, at) do
      [zeros, ones] = for n <- [0, 1], do: Enum.map(shape, fn _ -> n end)
      one = List.replace_at(shape, -1, 1)

      pairs
      |> Strides.slice(List.replace_at(zeros, -1, at), one, ones)
      |> Strides.squeeze([length(shape) - 1])
    end

    # Both parts of an operand.
    defp operand(%T{type: {:c, _}} = tensor, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, [part(pairs, 0), part(pairs, 1)]}
    end

    # Integers that the type of the calculation does not have are left to the host.
    defp operand(tensor, dtype, config) do
      with {:ok, value} <- Operand.of(tensor, config) do
        if Operand.value_of?(value, dtype) or match?(%{dtype: :f64}, value),
          do: {:ok, [Operand.cast(value, dtype), 0.0]},
          else: :host
      end
    end

    # The type of the parts: that of the widest operand or result.
    defp common(tensors, config) do
      narrow? = Enum.all?(tensors, &(&1.type == {:c, 64} or narrow?(Types.dtype(&1.type))))
      computed(if(narrow?, do: :f32, else: :f64), config)
    end

    defp narrow?(nil), do: false
    defp narrow?(dtype), do: Types.exact?(dtype, :f32)

    defp dtype(type, config), do: type |> Types.storage() |> elem(0) |> computed(config)

    defp computed(dtype, config),
      do: if(Operand.computes?(config.device, dtype), do: {:ok, dtype}, else: :host)

    ## Pairs

    # A view of pairs of a type.
    defp pairs(%T{type: {:c, _}} = tensor, dtype, config),
      do: tensor |> Storage.view(config) |> Movement.cast(dtype)

    defp pairs(%T{} = tensor, dtype, config) do
      shape = Tuple.to_list(tensor.shape) ++ [2]

      with {:ok, _} <- Operand.dtype(tensor),
           {:ok, real} <- tensor |> Storage.view(config) |> Movement.cast(dtype),
           {:ok, result} <- Buffer.zeros(shape, dtype, device: config.device),
           :ok <- Lowering.place(real, part(View.new(result), 0), :as_type),
           do: {:ok, View.new(result)}
    end

    # The description of pairs as real numbers with one more axis.
    defp real(%T{shape: shape, names: names} = tensor, dtype) do
      shape = List.to_tuple(Tuple.to_list(shape) ++ [2])
      %{tensor | type: Types.type(dtype), shape: shape, names: names ++ [nil]}
    end

    defp part_tensor({%T{} = tensor, at}, dtype, config) do
      with {:ok, pairs} <- pairs(tensor, dtype, config),
           do: {:ok, Storage.put(%{tensor | type: Types.type(dtype)}, part(pairs, at), config)}
    end
  end
end
