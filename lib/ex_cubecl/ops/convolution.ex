defmodule ExCubecl.Ops.Convolution do
  @moduledoc false
  # Convolutions of any number of spatial axes, as `Nx.conv/3`: large ones as products of matrices (`ExCubecl.Ops.Patches`), others by
  # a kernel that folds the products of one window for each element of the result.
  #
  # In canonical order, the input is [batch, channels, spatial axes], the kernel [output channels, channels, spatial axes]. The output channels are
  # divided into groups, which have channels of their own (feature groups) or a part of the batch of their own (batch groups).

  alias ExCubecl.{Device, Kernel}
  alias ExCubecl.Error.{Arguments, Text}
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{ComputeType, Epilogue, Fold, Operands, Patches, Shapes, WindowAxes}
  alias ExCubecl.View.Strides

  require Kernel
  require Types

  @multiply Kernel.kernel(fn x, k -> x * k end)
  @add Kernel.kernel(fn x, acc -> x + acc end)

  @options [:strides, :padding, :input_dilation, :kernel_dilation] ++
             [:feature_group_size, :batch_group_size] ++
             [:input_permutation, :kernel_permutation, :output_permutation]

  def run(input, kernel, opts, into \\ nil) do
    with {:ok, input} <- Operands.view(input),
         {:ok, kernel} <- Operands.view(kernel),
         {:ok, opts} <- Arguments.options(opts, @options),
         :ok <- ranks(input.shape, kernel.shape),
         {:ok, x} <- permuted(input, :input_permutation, opts),
         {:ok, k} <- permuted(kernel, :kernel_permutation, opts),
         {:ok, order} <- permutation(input.shape, :output_permutation, opts),
         {:ok, groups} <- groups(x.shape, k.shape, opts),
         {:ok, axes} <- axes(x.shape, k.shape, opts),
         {:ok, known} <- Device.dtypes(x.device) do
      {as, dtype} = types(x.dtype, k.dtype, known)
      calculate(x, k, axes, groups, order, {as, dtype}, into)
    end
    |> Epilogue.applied(into)
  end

  @doc "Whether a convolution of views, which need no buffers, is calculated by one kernel that knows epilogues. The options are valid."
  @spec own_kernel?(map, map, keyword) :: boolean
  def own_kernel?(x, k, opts) do
    with {:ok, x} <- permuted(x, :input_permutation, opts),
         {:ok, k} <- permuted(k, :kernel_permutation, opts),
         {:ok, order} <- permutation(x.shape, :output_permutation, opts),
         {:ok, groups} <- groups(x.shape, k.shape, opts),
         {:ok, axes} <- axes(x.shape, k.shape, opts) do
      if x.dtype != :f64 and groups == {1, 1} and Patches.suits?(x, k, axes),
        do: x.dtype == :f32 and Patches.own_kernel?(x, k, axes, order),
        else: true
    else
      _ -> false
    end
  end

  ## Checks

  defp ranks(shape, other) when length(shape) != length(other),
    do: Shapes.mismatch(:conv, :ranks, shape, other)

  defp ranks(shape, _other) when length(shape) < 3,
    do:
      Shapes.invalid(
        :conv,
        :shape,
        shape,
        "three axes or more: those of the batch, the channels, and one in space"
      )

  defp ranks(_shape, _other), do: :ok

  defp permuted(view, option, opts) do
    with {:ok, axes} <- permutation(view.shape, option, opts),
         do: {:ok, Strides.transpose(view, axes)}
  end

  defp permutation(shape, option, opts) do
    same = Enum.to_list(0..(length(shape) - 1))
    Shapes.permutation(:conv, shape, opts[option] || same, option)
  end

  defp groups([batch, channels | _] = shape, [filters, depth | _] = other, opts) do
    [feature, parts] =
      for option <- [:feature_group_size, :batch_group_size], do: Keyword.get(opts, option, 1)

    kernels = "the #{filters} output channels of the kernel #{Text.show(other)}"

    cond do
      not divides?(feature, filters) ->
        Shapes.invalid(:conv, :feature_group_size, feature, "a number that divides #{kernels}")

      not divides?(parts, filters) ->
        Shapes.invalid(:conv, :batch_group_size, parts, "a number that divides #{kernels}")

      not divides?(parts, batch) ->
        expected = "a number that divides the batch of #{batch} of the input #{Text.show(shape)}"
        Shapes.invalid(:conv, :batch_group_size, parts, expected)

      feature != 1 and parts != 1 ->
        Shapes.invalid(
          :conv,
          :batch_group_size,
          parts,
          "1, beside a feature_group_size of #{feature}"
        )

      channels != depth * feature ->
        more = %{channels: {channels, depth, feature}}
        Shapes.mismatch(:conv, :channels, shape, other, more)

      true ->
        {:ok, {feature, parts}}
    end
  end

  defp divides?(count, n), do: is_integer(count) and count > 0 and rem(n, count) == 0

  defp axes([_, _ | lengths], [_, _ | windows], opts) do
    names = [window: :kernel, dilations: :kernel_dilation, spreads: :input_dilation]
    WindowAxes.checked(:conv, lengths, windows, opts, names)
  end

  ## Types

  # The type of the accumulator and that of the result. Integers are exact, also together with floats.
  defp types(x, k, known) do
    case Types.mix(x, k) do
      dtype when Types.floating?(dtype) ->
        exact? = :f64 in known and Enum.any?([x, k], &(&1 in [:s32, :u32, :s64, :u64]))
        {if(dtype == :f64 or exact?, do: :f64, else: :f32), dtype}

      dtype ->
        wide = if dtype in [:u8, :u16, :u32, :u64], do: :u64, else: :s64
        {Enum.find([wide, :f64], :f32, &(&1 in known)), :f32}
    end
  end

  ## The sum of products

  defp calculate(x, k, axes, groups, order, {as, dtype}, into) do
    [filters | _] = k.shape
    {_, parts} = groups
    lengths = [div(hd(x.shape), parts), filters | WindowAxes.counts(axes)]
    # Output axis number `at` has the length of the canonical axis `from`.
    from = for at <- 0..(length(order) - 1), do: Enum.find_index(order, &(&1 == at))
    shape = Enum.map(from, &Enum.at(lengths, &1))

    with {:ok, _, _} <- Arguments.shape(shape, dtype),
         {:ok, x} <- ComputeType.widened(x),
         {:ok, k} <- ComputeType.widened(k),
         {:ok, out} <-
           if(as == :f32 and groups == {1, 1} and Patches.suits?(x, k, axes),
             do: Patches.run(x, k, axes, order, shape, into),
             else: direct(x, space(x, k, axes, groups, from), {as, dtype}, shape, into)
           ),
         do: if(is_list(out), do: {:ok, out}, else: ComputeType.converted(out, dtype))
  end

  defp direct(x, space, {as, dtype}, shape, into) do
    with {:ok, result} <- ComputeType.of(dtype, x.device) do
      spec = %{op: @multiply, step: @add, initial: 0, padding: :zero, as: as, dtype: result}
      Fold.run(Map.put(spec, :name, :conv), space, shape, into)
    end
  end

  # The kept axes are the batch, the groups, the output channels of a group, and those in space, in the order of the output.
  defp space(x, k, axes, {feature, parts}, from) do
    [batch, _ | _] = x.shape
    [filters, depth | _] = k.shape
    [along_batch, along_channels | in_space] = x.strides
    [along_filters, along_depth | in_window] = k.strides
    groups = feature * parts
    own = div(filters, groups)
    group = if parts > 1, do: div(batch, parts) * along_batch, else: depth * along_channels
    {offset, along, within, bounds} = WindowAxes.space(axes, in_space, {3, 1})
    zeros = Enum.map(axes, fn _ -> 0 end)

    ordered = fn list -> Enum.flat_map(from, &parts(list, &1)) end

    %{
      kept: ordered.([div(batch, parts), groups, own | WindowAxes.counts(axes)]),
      folded: [depth | Enum.map(axes, & &1.window)],
      operands: [
        x: %{
          buffer: x.buffer,
          offset: x.offset + offset,
          kept: ordered.([along_batch, group, 0 | along]),
          folded: [along_channels | within],
          padded?: true
        },
        k: %{
          buffer: k.buffer,
          offset: k.offset,
          kept: ordered.([0, own * along_filters, along_filters | zeros]),
          folded: [along_depth | in_window],
          padded?: false
        }
      ],
      bounds: for({name, bound} <- bounds, do: {name, %{bound | kept: ordered.(bound.kept)}})
    }
  end

  # The elements of a list for the kept axes that a canonical axis consists of.
  defp parts([batch | _], 0), do: [batch]
  defp parts([_, groups, own | _], 1), do: [groups, own]
  defp parts(list, axis), do: [Enum.at(list, axis + 1)]
end
