defmodule ExCubecl.NumpyOperations do
  @moduledoc false
  # Each operation of `ExCubecl.Ops` in each type, on strided views of random shapes of rank 0 to 6, with axes of length 0: cases for
  # `ExCubecl.NumpyCases`. What NumPy calculates is in test/numpy/operations.py.
  #
  # Random numbers, and operations with a kernel as function, have tests of their own.

  alias ExCubecl.{Buffer, NumpyMovements, Ops, TypedPrograms}
  alias ExCubecl.NumpyData, as: Data

  @functions Keyword.keys(ExCubecl.Ops.Functions.all())
  @comparisons ~w(equal not_equal less less_equal greater greater_equal)a
  @groups [
    unary: ~w(negate abs floor ceil round relu sign logical_not is_nan is_infinity)a,
    bits: ~w(bitwise_not population_count count_leading_zeros)a,
    function: @functions,
    binary:
      ~w(add subtract multiply divide min max logical_and logical_or logical_xor remainder pow atan2)a ++
        @comparisons,
    of_integers:
      ~w(quotient integer_pow bitwise_and bitwise_or bitwise_xor left_shift right_shift)a,
    ternary: ~w(select clip)a,
    as_type: [:as_type],
    reduction: ~w(sum product mean variance standard_deviation norm logsumexp)a,
    extreme: ~w(reduce_min reduce_max all any)a,
    place: ~w(argmin argmax)a,
    cumulative: ~w(cumulative_sum cumulative_product cumulative_min cumulative_max)a,
    window: ~w(window_sum window_product window_min window_max window_mean)a,
    order: ~w(sort argsort top_k unique)a,
    rows: ~w(softmax log_softmax layer_norm rms_norm)a,
    moved: ~w(slice put_slice pad reverse transpose broadcast_to tile concatenate stack split)a,
    indexed: ~w(gather take take_along_axis gather_nd indexed_put indexed_add one_hot)a,
    product: ~w(matmul dot conv)a,
    fourier: ~w(fft ifft rfft irfft fft2 ifft2)a,
    made: ~w(eye iota)a
  ]
  @all for {group, names} <- @groups, name <- names, do: {group, name}
  @floats [:f16, :f32, :f64, :bf16]
  # Shapes whose reductions take several steps.
  @longer [[200], [5000], [3, 70], [70, 3], [2, 65, 3], [130, 2]]
  @without_into ~w(unique split top_k eye iota)a

  @doc "Case `number`: operations take turns, then types."
  def run(number, types) do
    {group, name} = Enum.at(@all, rem(number, length(@all)))
    type = Enum.at(types, rem(div(number, length(@all)), length(types)))
    made(group, name, of_group(group, name, type, types), types)
  end

  # A type that the operation takes.
  defp of_group(group, name, type, types) do
    {floats, integers} = Enum.split_with(types, &(&1 in @floats))

    cond do
      group in [:bits, :of_integers] and type in @floats -> Enum.random(integers)
      # The device has these functions not to the last bits of f64.
      name in [:pow, :atan2] and type == :f64 -> :f32
      name in [:pow, :atan2] and type not in @floats -> Enum.random(floats -- [:f64])
      true -> type
    end
  end

  ## Element-wise

  defp made(group, name, type, _types) when group in [:unary, :bits] do
    x = Data.tensor(:x, type, Data.shape())
    case_of(name, [x], "unary_of('#{name}', '#{type}', x)")
  end

  defp made(:function, name, type, _types) do
    x = Data.tensor(:x, type, Data.shape(), :moderate)
    case_of(name, [x], "function_of('#{name}', dtype, cast(x, '#{type}', dtype))")
  end

  defp made(group, name, a, types) when group in [:binary, :of_integers] do
    b = Enum.random(Enum.filter(types, &allowed?(group, name, a, &1)))
    {one, two} = Data.broadcasting()
    kind = if name in [:pow, :atan2], do: :moderate, else: :any
    x = Data.tensor(:x, a, one, kind)
    y = Data.tensor(:y, b, two, if(name == :integer_pow, do: :small, else: kind))
    mixed = TypedPrograms.mix(a, b)
    mixed = if name == :divide and mixed not in @floats, do: :f32, else: mixed
    values? = name in @comparisons and mixed not in @floats

    operands =
      for {variable, type} <- [x: a, y: b],
          do: if(values?, do: variable, else: "cast(#{variable}, '#{type}', '#{mixed}')")

    case_of(name, [x, y], "binary_of('#{name}', '#{mixed}', #{Enum.join(operands, ", ")})")
  end

  defp made(:ternary, :select, type, _types) do
    {one, two} = Data.broadcasting()
    inputs = [Data.tensor(:p, :u8, two), Data.tensor(:x, type, one), Data.tensor(:y, type, two)]
    case_of(:select, inputs, "np.where(p != 0, x, y)")
  end

  defp made(:ternary, :clip, type, _types) do
    x = Data.tensor(:x, type, Data.shape())
    inputs = [x | for(name <- [:low, :high], do: Data.tensor(name, type, []))]

    python =
      "binary('min', '#{type}', binary('max', '#{type}', x, np.broadcast_to(low, x.shape)), high)"

    case_of(:clip, inputs, python)
  end

  defp made(:as_type, :as_type, type, types) do
    to = Enum.random(types)
    x = Data.tensor(:x, type, Data.shape())
    case_of(:as_type, [x], "as_type(x, '#{type}', '#{to}')", [to])
  end

  ## Reductions

  defp made(group, name, type, _types) when group in [:reduction, :extreme] do
    empty? = name not in [:reduce_min, :reduce_max, :logsumexp]
    shape = if :rand.uniform(3) == 1, do: Enum.random(@longer), else: Data.shape(empty?)
    kind = if group == :extreme, do: :any, else: :tame
    kind = if name == :product, do: :small, else: kind
    x = Data.tensor(:x, type, shape, kind)
    axes = Enum.take_random(Data.axes(shape), Enum.random(0..length(shape)))
    keep = Enum.random([true, false])
    order = Enum.random([1, 2, 3, 0, :infinity, :neg_infinity])
    # The extremes of no magnitudes are left open.
    order = if 0 in shape and is_atom(order), do: 2, else: order
    more = if name == :norm, do: [order: order], else: []
    opts = [axes: axes, keep_axes: keep] ++ more
    opts = if axes == [], do: Keyword.delete(opts, :axes), else: opts
    at = if axes == [], do: "None", else: "(#{Enum.map_join(axes, &"#{&1}, ")})"
    order = Map.get(%{infinity: "np.inf", neg_infinity: "-np.inf"}, order, order)
    python = "reduced('#{name}', '#{type}', dtype, x, #{at}, #{python(keep)}, #{order})"
    case_of(name, [x], python, [opts])
  end

  defp made(:place, name, type, _types) do
    shape = if :rand.uniform(3) == 1, do: Enum.random(@longer), else: Data.shape(false)
    x = Data.tensor(:x, type, shape)
    axis = Enum.random([nil | Data.axes(shape)])
    tie = Enum.random([:low, :high])
    opts = [tie_break: tie] ++ if(axis, do: [axis: axis], else: [])
    python = "place('#{name}', x, #{python(axis)}, #{python(tie == :high)})"
    case_of(name, [x], python, [opts])
  end

  defp made(:cumulative, name, type, _types) do
    shape = [Enum.random(0..3) | Enum.take(Data.shape(), 5)]
    shape = if :rand.uniform(3) == 1, do: Enum.random(@longer), else: shape
    kind = %{cumulative_sum: :tame, cumulative_product: :small}[name] || :any
    x = Data.tensor(:x, type, shape, kind)
    axis = Enum.random(Data.axes(shape))
    reverse = Enum.random([true, false])
    python = "cumulative('#{name}', '#{type}', x, #{axis}, #{python(reverse)})"
    case_of(name, [x], python, [[axis: axis, reverse: reverse]])
  end

  ## Windows, order, rows

  defp made(:window, name, type, _types) do
    shape = Enum.map(Data.shape(false), &(&1 + 1))
    window = Enum.map(shape, &Enum.random(1..&1))
    strides = Enum.map(shape, fn _ -> Enum.random(1..3) end)
    padding = for _ <- shape, do: {Enum.random(0..2), Enum.random(0..2)}
    kind = %{window_min: :any, window_max: :any, window_product: :small}[name] || :tame
    x = Data.tensor(:x, type, shape, kind)

    python =
      "window('#{name}', '#{type}', dtype, x, #{python(window)}, #{python(strides)}, #{python(padding)})"

    case_of(name, [x], python, [window, [strides: strides, padding: padding]])
  end

  defp made(:order, :unique, type, _types) do
    x = Data.tensor(:x, type, Data.shape())
    case_of(:unique, [x], "distinct(x)")
  end

  defp made(:order, name, type, _types) do
    shape = Data.shape() ++ [Enum.random(0..20)]
    x = Data.tensor(:x, type, shape)
    axis = Enum.random(Data.axes(shape))
    direction = if name == :top_k, do: :desc, else: Enum.random([:asc, :desc])
    k = Enum.random(0..Enum.at(shape, axis))
    args = if name == :top_k, do: [k, [axis: axis]], else: [[axis: axis, direction: direction]]
    k = if name == :top_k, do: k, else: "None"
    python = "ordered('#{name}', x, #{axis}, #{python(direction == :desc)}, #{k})"
    case_of(name, [x], python, args)
  end

  defp made(:rows, name, type, _types) do
    shape = Data.shape() ++ [Enum.random(1..9)]
    x = Data.tensor(:x, type, shape, :tame)
    axis = Enum.random(for axis <- Data.axes(shape), Enum.at(shape, axis) > 0, do: axis)
    case_of(name, [x], "row('#{name}', '#{type}', dtype, x, #{axis})", [[axis: axis]])
  end

  ## Movement

  defp made(:moved, name, type, _types) do
    shape = Data.shape()
    x = Data.tensor(:x, type, shape)
    {inputs, args, python} = NumpyMovements.moved(name, x, shape, type)
    called(name, inputs, python, args)
  end

  defp made(:indexed, name, type, _types) do
    {inputs, args, python} = NumpyMovements.indexed(name, type)
    called(name, inputs, python, args)
  end

  ## Products, transforms, new buffers

  defp made(:product, :conv, type, _types) do
    space = for _ <- 1..Enum.random(1..2), do: Enum.random(1..6)
    kernel = Enum.map(space, &Enum.random(1..&1))
    [batch, channels, out] = for _ <- 1..3, do: Enum.random(1..3)
    x = Data.tensor(:x, type, [batch, channels | space], :tame)
    k = Data.tensor(:k, type, [out, channels | kernel], :tame)
    strides = Enum.map(space, fn _ -> Enum.random(1..2) end)
    padding = for _ <- space, do: {Enum.random(0..2), Enum.random(0..1)}
    python = "convolution('#{type}', dtype, x, k, #{python(strides)}, #{python(padding)})"
    case_of(:conv, [x, k], python, [[strides: strides, padding: padding]])
  end

  defp made(:product, :matmul, type, _types) do
    [m, k, n] = for _ <- 1..3, do: Enum.random([0, 1, 2, 3, 5, 17, 70])
    {one, two} = Enum.random([{[], []}, {[2], []}, {[1, 3], [2, 1]}, {[3], [3]}])
    x = Data.tensor(:x, type, one ++ [m, k], :tame)
    y = Data.tensor(:y, type, two ++ [k, n], :tame)
    case_of(:matmul, [x, y], "product_of('#{type}', np.matmul, x, y, #{k})")
  end

  defp made(:product, :dot, type, _types) do
    [a, b, c, d] = for _ <- 1..4, do: Enum.random([0, 1, 2, 3, 4])
    x = Data.tensor(:x, type, [a, b, c], :tame)
    # The batch axes have to be the leading ones.
    y = Data.tensor(:y, type, [a, c, d], :tame)
    einsum = "lambda p, q: np.einsum('abc,acd->abd', p, q)"
    opts = [contract_axes: {[2], [1]}, batch_axes: {[0], [0]}]
    case_of(:dot, [x, y], "product_of('#{type}', #{einsum}, x, y, #{c})", [opts])
  end

  defp made(:fourier, name, type, _types) do
    shape = for _ <- 1..Enum.random(2..4), do: Enum.random([1, 2, 3, 4, 7, 8, 11, 12, 16])
    shape = Enum.take(shape, if(name in [:fft2, :ifft2], do: 3, else: 2))
    x = Data.tensor(:x, type, shape ++ if(name == :rfft, do: [], else: [2]), :tame)
    axis = Enum.random(Data.axes(shape))
    n = Enum.random([5, 8, 16, 30])
    python = "transformed('#{name}', dtype, x, #{axis}, #{n})"
    opts = if name in [:fft2, :ifft2], do: [], else: [[axis: axis, length: n]]
    case_of(name, [x], python, opts)
  end

  defp made(:made, :eye, type, _types) do
    shape = for _ <- 1..2, do: Enum.random(0..9)
    python = "as_type(np.eye(#{Enum.join(shape, ", ")}, dtype=np.int8), 's8', dtype)"
    case_of(:eye, [], python, [shape, type])
  end

  defp made(:made, :iota, type, _types) do
    shape = [Enum.random(0..5) | Enum.take(Data.shape(), 5)]
    axis = Enum.random(Data.axes(shape))
    python = "as_type(np.indices(#{python(shape)})[#{axis}], 's64', dtype)"
    case_of(:iota, [], python, [shape, type, [axis: axis]])
  end

  # Comparisons and arithmetic need a merged type that the device has.
  defp allowed?(group, name, a, b) do
    mixed = TypedPrograms.mix(a, b)

    case group do
      :of_integers ->
        mixed not in @floats

      _ when name in [:remainder, :pow, :atan2] ->
        name == :remainder or (mixed in @floats and mixed != :f64)

      _ ->
        true
    end
  end

  ## Cases

  defp case_of(name, inputs, python, more \\ []),
    do: called(name, inputs, python, Enum.map(inputs, & &1.value) ++ more)

  # A third of the results are made in a buffer that is there.
  defp called(name, inputs, python, args) do
    out = Ops |> apply(name, args) |> result(name, args)
    out = if name in @without_into or :rand.uniform(3) > 1, do: out, else: into(name, args, out)

    %{
      name: "#{name} #{inspect(args, limit: 5)}",
      inputs: Enum.map(inputs, & &1.data),
      python: "dtype = '#{out.dtype}'\n#{views(inputs)}out = #{python}",
      out: out
    }
  end

  defp result({:ok, {values, _places}}, _name, _args), do: values
  defp result({:ok, [first | _]}, _name, _args), do: first
  defp result({:ok, buffer}, _name, _args), do: buffer

  defp result({:error, error}, name, args),
    do: raise("#{name} #{inspect(args)}: #{Exception.message(error)}")

  defp into(name, args, out) do
    into = Buffer.full!(out.shape, out.dtype, 1)

    :ok =
      case List.last(args) do
        [{key, _} | _] = opts when is_atom(key) ->
          apply(Ops, name, Enum.drop(args, -1) ++ [opts ++ [into: into]])

        _ ->
          apply(Ops, name, args ++ [[into: into]])
      end

    into
  end

  defp views(inputs), do: Enum.map_join(inputs, &"#{&1.name} = #{&1.python}\n")

  defp python(nil), do: "None"
  defp python(true), do: "True"
  defp python(false), do: "False"
  defp python(list) when is_list(list), do: "[" <> Enum.map_join(list, ", ", &python/1) <> "]"
  defp python({a, b}), do: "(#{a}, #{b})"
  defp python(number), do: "#{number}"
end
