if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Complex do
    @moduledoc false
    # Callbacks on complex numbers, which are pairs along a last axis: each part of the result is a kernel of the parts of the operands, which
    # are strided views, or an operation on the pairs as real numbers with one more axis. Results as those of `ExCubecl.Nx.ElementWise`.

    import ExCubecl.Nx.ComplexParts

    alias ExCubecl.{Error, Kernel, Ops}

    alias ExCubecl.Nx.{
      ComplexFunctions,
      ComplexKernels,
      ComplexProduct,
      Dot,
      ElementWise,
      Indexing,
      Layout,
      Operand,
      Reduction,
      Scan,
      Storage,
      Types,
      Windows
    }

    alias ExCubecl.Ops.{ComputeType, Lowering}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    require Kernel

    @select Kernel.kernel(fn p, a, b -> if p != 0, do: a, else: b end)
    @truth Kernel.kernel(fn a, b -> a != 0 or b != 0 end)

    @functions ComplexFunctions.names()
    @logical [:logical_and, :logical_or, :logical_xor]
    @joins [:concatenate, :stack, :put_slice]
    @reads [:take, :gather]
    @writes [:indexed_put, :indexed_add]
    @created [:iota, :eye]
    @most_of_window 64

    # Up to Nx 0.7, no complex number equals a real one.
    one = &Nx.BinaryBackend.from_binary(Nx.template({}, &1), &2, [])
    pair = one.({:c, 64}, <<1.0::float-32-native, 0.0::float-32-native>>)
    real = one.({:f, 32}, <<1.0::float-32-native>>)
    equal = Nx.BinaryBackend.equal(Nx.template({}, {:u, 8}), pair, real)
    @reals_differ Nx.to_binary(equal) == <<0>>

    @names [
             :as_type,
             :sum,
             :cumulative_sum,
             :window_sum,
             :window_product,
             :product,
             :dot,
             :conv,
             :pow,
             :select,
             :all,
             :any,
             :pad,
             :take_along_axis
           ] ++
             @logical ++
             @joins ++ @reads ++ @writes ++ @created ++ @functions ++ ComplexKernels.names()

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: @names

    @doc "Whether a callback is one of these, with complex numbers among its operands or results."
    def run?(name, [out | _], tensors),
      do: Enum.any?([out | tensors], &match?(%T{type: {:c, _}}, &1)) and name in @names

    def run(:as_type, [%T{type: {:c, _} = type}, tensor], config) do
      with {:ok, dtype} <- dtype(type, config), do: pairs(tensor, dtype, config)
    end

    # The imaginary part is dropped.
    def run(:as_type, [out, tensor], config) do
      with {:ok, dtype} <- dtype(tensor.type, config),
           {:ok, real} <- part_tensor({tensor, 0}, dtype, config),
           do: Layout.run(:as_type, [out, real], config)
    end

    # A sum has the pairs of the sums of both parts.
    def run(:sum, [%T{type: type} = out, tensor, opts], config) do
      with {:ok, dtype} <- dtype(type, config),
           {:ok, pairs} <- pairs(tensor, dtype, config) do
        axes = opts[:axes] || Enum.to_list(0..(tuple_size(tensor.shape) - 1)//1)
        pairs = Storage.put(real(tensor, dtype), pairs, config)
        Reduction.run(:sum, [real(out, dtype), pairs, Keyword.put(opts, :axes, axes)], config)
      end
    end

    def run(:cumulative_sum, [%T{type: type} = out, tensor, opts], config) do
      with {:ok, dtype} <- dtype(type, config),
           {:ok, pairs} <- pairs(tensor, dtype, config) do
        pairs = Storage.put(real(tensor, dtype), pairs, config)
        Scan.run(:cumulative_sum, [real(out, dtype), pairs, opts], config)
      end
    end

    def run(:window_sum, [out, tensor, window, opts], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, parts} <- Error.map([0, 1], &part_tensor({tensor, &1}, dtype, config)),
           out_part = %{out | type: Types.type(dtype)},
           {:ok, sums} <-
             Error.map(parts, &Windows.run(:window_sum, [out_part, &1, window, opts], config)),
           do: parts_joined(:window_sum, sums, out, config)
    end

    def run(:product, [out, tensor, opts], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, pairs} <- pairs(tensor, dtype, config),
           {:ok, parts} <- ComplexProduct.run(pairs, opts[:axes], out.shape),
           do: parts_joined(:product, parts, out, config)
    end

    # A product of complex numbers takes a launch for each element of the window: larger windows run on the host.
    def run(:window_product, [out, tensor, window, opts], config) do
      with true <- Tuple.product(window) <= @most_of_window,
           {:ok, dtype} <- dtype(out.type, config),
           {:ok, parts} <- both_parts(tensor, dtype, config),
           {:ok, parts} <- ComplexProduct.of_windows(parts, window, out.shape, opts) do
        parts_joined(:window_product, parts, out, config)
      else
        false -> :host
        other -> other
      end
    end

    def run(:dot, [out, x, x_axes, x_batch, y, y_axes, y_batch], config) do
      bilinear(:dot, out, {x, y}, config, fn out, x, y ->
        Dot.run(:dot, [out, x, x_axes, x_batch, y, y_axes, y_batch], config)
      end)
    end

    def run(:conv, [out, input, kernel, opts], config) do
      bilinear(
        :conv,
        out,
        {input, kernel},
        config,
        &Windows.run(:conv, [&1, &2, &3, opts], config)
      )
    end

    def run(:pow, [out | tensors], config) do
      with {:ok, dtype} <- function_type(:pow, [out | tensors], config),
           {:ok, [z, w]} <- Error.map(tensors, &both_parts(&1, dtype, config)) do
        {a, b} = ComplexFunctions.pow(z, w)
        parts_joined(:pow, [a, b], out, config)
      end
    end

    def run(name, [out, tensor], config) when name in @functions do
      with {:ok, dtype} <- function_type(name, [out, tensor], config),
           {:ok, z} <- both_parts(tensor, dtype, config) do
        {a, b} = ComplexFunctions.of(name, z)
        parts_joined(name, [a, b], out, config)
      end
    end

    # As a predicate of Nx.BinaryBackend, a complex number is always true.
    def run(:select, [out, %T{type: {:c, _}} = pred | tensors], config),
      do: selected([out, Storage.fill(%{pred | type: {:u, 8}}, <<1>>, config) | tensors], config)

    def run(:select, args, config), do: selected(args, config)

    # So is one of which `all` and `any` ask.
    def run(name, [_out, %T{type: {:c, _}}, _opts], _config) when name in [:all, :any],
      do: {:fill, <<1>>}

    # A complex number is true if one of its parts is not 0.
    def run(name, [out | args], config) when name in @logical do
      with {:ok, args} <- Error.map(args, &truth(&1, config)),
           do: ElementWise.run(name, [out | args], config)
    end

    def run(:pad, [out, tensor, value, padding], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, {a, b}} <- both_parts(tensor, dtype, config) do
        value = if is_struct(value, T), do: Nx.to_number(value), else: value
        numbers = [Complex.real(value), Complex.imag(value)]

        with {:ok, parts} <-
               Error.map(Enum.zip([a, b], numbers), fn {part, number} ->
                 Ops.pad(part, Operand.cast(number, dtype), padding)
               end),
             do: parts_joined(:pad, parts, out, config)
      end
    end

    def run(name, [out, first | rest] = args, config) when name in @joins or name in @writes do
      with {:ok, dtype} <- dtype(out.type, config) do
        cond do
          name in @writes ->
            [indices, updates, opts] = rest

            with {:ok, [target, updates]} <-
                   Error.map([first, updates], &real_pairs(&1, dtype, config)),
                 do:
                   Indexing.run(name, [real(out, dtype), target, indices, updates, opts], config)

          name == :put_slice ->
            [starts, source] = rest

            with {:ok, [target, source]} <-
                   Error.map([first, source], &as_complex(&1, out.type, dtype, config)),
                 do: Layout.run(name, [out, target, starts, source], config)

          true ->
            [out, tensors, axis] = args

            with {:ok, tensors} <- Error.map(tensors, &as_complex(&1, out.type, dtype, config)),
                 do: Layout.run(name, [out, tensors, axis], config)
        end
      end
    end

    def run(name, [out, tensor, indices, opts], config) when name in @reads do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, pairs} <- real_pairs(tensor, dtype, config),
           do: Indexing.run(name, [real(out, dtype), pairs, indices, opts], config)
    end

    # Both parts have the same indices.
    def run(:take_along_axis, [out, tensor, indices, opts], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, pairs} <- real_pairs(tensor, dtype, config),
           {:ok, [view]} <- Storage.views([indices], config),
           {:ok, view} <- Strides.reshape(view, view.shape ++ [1]),
           twice = Strides.broadcast(view, List.replace_at(view.shape, -1, 2)),
           shape = List.to_tuple(twice.shape),
           indices =
             Storage.put(%{indices | shape: shape, names: indices.names ++ [nil]}, twice, config),
           do: Indexing.run(:take_along_axis, [real(out, dtype), pairs, indices, opts], config)
    end

    def run(name, [out | args], config) when name in @created do
      with {:ok, dtype} <- dtype(out.type, config),
           real = %{out | type: Types.type(dtype)},
           {:ok, numbers} <- created(name, real, args, config),
           do: pairs(Storage.put(real, numbers, config), dtype, config)
    end

    if @reals_differ do
      def run(name, [_out, %T{type: {a, _}}, %T{type: {b, _}}], _config)
          when name in [:equal, :not_equal] and a == :c != (b == :c),
          do: {:fill, if(name == :equal, do: <<0>>, else: <<1>>)}
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

    defp selected([%T{type: {:c, _}} = out, pred | tensors], config) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, [{a, b}, {c, d}]} <- Error.map(tensors, &both_parts(&1, dtype, config)),
           {:ok, pred} <- pred |> Storage.view(config) |> ComputeType.widened() do
        joined(:select, [{@select, [pred, a, c]}, {@select, [pred, b, d]}], out, config)
      end
    end

    defp selected(args, config), do: ElementWise.run(:select, args, config)

    defp created(:iota, out, [axis], config), do: Layout.iota(out, axis, config)
    defp created(:eye, out, [], config), do: Layout.eye(out, config)

    ## Products

    # (a + b i)(c + d i) for products of tensors.
    defp bilinear(name, out, {x, y}, config, product) do
      with {:ok, dtype} <- dtype(out.type, config),
           {:ok, [a, b, c, d]} <-
             Error.map([{x, 0}, {x, 1}, {y, 0}, {y, 1}], &part_tensor(&1, dtype, config)),
           out_part = %{out | type: Types.type(dtype)},
           {:ok, [ac, bd, ad, bc]} <-
             Error.map([{a, c}, {b, d}, {a, d}, {b, c}], fn {x, y} -> product.(out_part, x, y) end) do
        [difference, total] = ComplexKernels.sums()
        joined(name, [{difference, [ac, bd]}, {total, [ad, bc]}], out, config)
      end
    end

    defp function_type(name, tensors, config) do
      if ComplexFunctions.unstable?(name) and Operand.computes?(config.device, :f64),
        do: {:ok, :f64},
        else: common(tensors, config)
    end

    # Whether numbers are not 0, for a complex tensor.
    defp truth(%T{type: {:c, _} = type} = tensor, config) do
      with {:ok, dtype} <- dtype(type, config),
           {:ok, {a, b}} <- both_parts(tensor, dtype, config),
           {:ok, truth} <- Lowering.map(@truth, [a, b], dtype: :u8),
           do: {:ok, Storage.put(%{tensor | type: {:u, 8}}, truth, config)}
    end

    defp truth(other, _config), do: {:ok, other}
  end
end
