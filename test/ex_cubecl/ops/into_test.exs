defmodule ExCubecl.Ops.IntoTest do
  # The option `into:` of operations that are not element-wise.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.{Kernel, Ops, View}
  alias ExCubecl.Ops.{Dot, Fourier, Gathering, Movement, Normalization, OneHot}
  alias ExCubecl.Ops.{Reductions, Scan, Sorting, Windows}

  require Kernel

  # Each operation with the tensors that it reads, as a function of these and of options. Some make the result in the buffer, others copy it there:
  # small and large ones, along the last and along other axes, of types that are converted in the end.
  defp operations do
    x = matrix([6, 8], :f32)
    half = matrix([6, 8], :f16)
    small = matrix([6, 8], :u8)
    long = matrix([3, 5000], :f32)
    image = matrix([2, 3, 9, 9], :f32)
    at = ExCubecl.buffer!([2, 0, 5], [3], :s32)
    vectors = ExCubecl.buffer!([[2, 1], [0, 7]], [2, 2], :s32)
    vector = matrix([8], :f32)

    reductions =
      for name <-
            [:sum, :product, :reduce_min, :reduce_max, :all, :any, :mean, :variance] ++
              [:standard_deviation, :norm, :logsumexp, :argmin, :argmax],
          tensor <- [x, half, small, long, View.transpose!(x)],
          opts <- [[], [axis: 0], [axis: 1, keep_axes: true]],
          do: {name, [tensor], opts}

    lines =
      for name <-
            [:sort, :argsort, :softmax, :log_softmax, :layer_norm, :rms_norm] ++
              [:cumulative_sum, :cumulative_max],
          tensor <- [x, half, small, long, View.transpose!(x)],
          axis <- [0, 1],
          do: {name, [tensor], [axis: axis]}

    windows =
      for name <- [:window_sum, :window_product, :window_min, :window_max, :window_mean],
          tensor <- [x, half, small],
          do: {name, [tensor, [2, 3]], [strides: [2, 1]]}

    reductions ++
      lines ++
      windows ++
      [
        {:argsort, [x], [dtype: :s64]},
        {:cumulative_sum, [x], [reverse: true]},
        {:gather, [x, at], []},
        {:gather, [half, at], [axis: 1]},
        {:take, [small, at], [axis: 1]},
        {:take_along_axis, [x, Buffer.zeros!([6, 1], :s32)], [axis: 1]},
        {:gather_nd, [x, vectors], []},
        {:indexed_put, [x, vectors, matrix([2], :f32)], []},
        {:indexed_add, [half, vectors, matrix([2], :f16)], []},
        {:indexed_add, [small, vectors, matrix([2], :u8)], []},
        {:one_hot, [at, 4], []},
        {:window_scatter_max, [x, matrix([3, 8], :f32), 0, [2, 1]], [strides: [2, 1]]},
        {:reduce, [x, 0, Kernel.kernel(fn x, acc -> 2 * acc + x end)], [axis: 1]},
        {:window_reduce, [x, 0, [2, 2], Kernel.kernel(fn x, acc -> 2 * acc + x end)], []},
        {:conv, [image, matrix([4, 3, 3, 3], :f32)], []},
        {:conv, [image, matrix([64, 3, 3, 3], :f32)], [output_permutation: [0, 3, 2, 1]]},
        {:conv, [matrix([1, 1, 9], :f16), matrix([1, 1, 2], :f16)], [padding: :same]},
        {:dot, [x, View.transpose!(x)], []},
        {:dot, [small, vector], []},
        {:dot, [x, x], [contract_axes: {[], []}]},
        {:dot, [long, long], [contract_axes: {[1], [1]}]},
        {:matmul, [half, View.transpose!(half)], []},
        {:matmul, [matrix([300, 300], :f32), matrix([300, 300], :f32)], []},
        {:broadcast_to, [x, [2, 6, 8]], []},
        {:broadcast_to, [x, [6, 8]], []},
        {:transpose, [x], []},
        {:transpose, [matrix([300, 400], :f32)], []},
        {:transpose, [half], []},
        {:reverse, [small], []},
        {:slice, [x, [1, 2], [4, 3]], []},
        {:slice, [x, [1, 0], [4, 8]], []},
        {:put_slice, [x, [1, 2], matrix([2, 2], :f32)], []},
        {:pad, [x, 3, [{1, 2, 1}, {0, -1, 0}]], []},
        {:tile, [x, [2, 1]], []},
        {:concatenate, [[x, x, x]], [axis: 1]},
        {:stack, [[small, small]], []},
        {:fft, [matrix([3, 8, 2], :f32)], []},
        {:ifft, [matrix([3, 11, 2], :f32)], []},
        {:rfft, [x], []},
        {:irfft, [matrix([3, 8, 2], :f32)], []},
        {:rfft, [half], [axis: 0, length: 20]},
        {:irfft, [matrix([3, 8, 2], :f32)], [axis: 0, length: 1]},
        {:fft, [matrix([3, 1, 2], :f32)], []},
        {:ifft, [matrix([3, 8, 2], :f32)], [axis: 0, length: 64]},
        {:fft, [x], [real: true, length: 8]},
        {:fft, [x], [real: true, axis: 0, length: 13]},
        {:fft2, [matrix([3, 8, 2], :f32)], []}
      ]
  end

  defp matrix(shape, dtype) do
    count = Enum.product(shape)
    values = for i <- 0..(count - 1), do: rem(i * 7, 23) / 4
    values = if dtype in [:u8], do: Enum.map(values, &trunc/1), else: values
    ExCubecl.buffer!(values, shape, dtype)
  end

  # Buffers with other contents than the result, one of which has no memory yet.
  defp targets(%{shape: shape, dtype: dtype}),
    do: [Buffer.empty!(shape, dtype), Buffer.full!(shape, dtype, 77)]

  test "a buffer of a device that does not exist" do
    x = %{Buffer.iota!([4], :f32) | device: {:vulkan, 4242}}
    refused(Ops.softmax(x), :unknown_device)
    refused(Ops.pad(x, 0, [{1, 1, 0}]), :unknown_device)
  end

  test "the result is that of a new buffer" do
    for {name, args, opts} <- operations() do
      expected = apply(Ops, :"#{name}!", args ++ [opts])

      for into <- targets(expected) do
        assert {name, args, opts, apply(Ops, name, args ++ [[into: into] ++ opts])} ==
                 {name, args, opts, :ok}

        assert {name, args, opts, Buffer.read!(into)} ==
                 {name, args, opts, Buffer.read!(expected)}
      end
    end
  end

  test "the two results of top_k" do
    for {axis, dtype} <- [{1, :s32}, {0, :s32}, {1, :s64}] do
      x = matrix([40, 300], :f32)
      {values, places} = Ops.top_k!(x, 5, axis: axis, dtype: dtype)
      [into_values, into_places] = for result <- [values, places], do: hd(targets(result))
      opts = [axis: axis, dtype: dtype, into: {into_values, into_places}]
      assert Ops.top_k(x, 5, opts) == :ok
      assert Buffer.read!(into_values) == Buffer.read!(values)
      assert Buffer.read!(into_places) == Buffer.read!(places)
    end

    x = matrix([6, 8], :f32)
    [values, places] = [Buffer.zeros!([6, 2], :f32), Buffer.zeros!([6, 2], :s32)]
    refused(Ops.top_k(x, 2, into: values), :invalid_argument, says: "{values, indices}")
    refused(Ops.top_k(x, 2, into: {places, places}), :overlap)
    refused(Ops.top_k(x, 2, into: {values, values}), :overlap, says: "(indices)")
    refused(Ops.top_k(x, 3, into: {values, places}), :shape_mismatch, says: "kernel top_k")
    assert Enum.uniq(Buffer.to_flat_list!(places)) == [0]
  end

  test "a buffer that shares bytes with an operand is refused, and is unchanged" do
    for {name, args, opts} <- operations(),
        at <- tensors(args),
        view = hd(List.wrap(Enum.at(args, at))),
        buffer = if(is_struct(view, View), do: view.buffer, else: view) do
      before = Buffer.read!(buffer)
      result = apply(Ops, name, args ++ [[into: buffer] ++ opts])

      error = refused(result, :overlap, says: "option into of kernel #{name}")
      assert error.details.other.number <= at + 1
      assert {error.details.kernel, error.details.number} == {name, :into}
      assert Buffer.read!(buffer) == before
    end
  end

  # Where the tensors are among the arguments; a list has the first of its tensors.
  defp tensors(args) do
    for {arg, at} <- Enum.with_index(args),
        is_struct(hd(List.wrap(arg)), Buffer) or is_struct(hd(List.wrap(arg)), View),
        at == Enum.find_index(args, &(&1 == arg)),
        do: at
  end

  test "vectors of a normalization are operands, and parts of one buffer are not" do
    x = matrix([4, 8], :f32)
    scale = Buffer.view!(x, 0, [8])
    rest = Buffer.view!(x, 8, [3, 8])
    refused(Ops.layer_norm(rest, scale: scale, into: x), :overlap)
    into = Buffer.zeros!([3, 8], :f32)
    assert Ops.layer_norm(rest, scale: scale, into: into) == :ok

    refused(Ops.rms_norm(rest, scale: Buffer.view!(into, 0, [8]), into: into), :overlap,
      says: "(scale)"
    )

    assert Ops.sum(rest, axis: 0, into: scale) == :ok
    assert Buffer.read!(scale) == Buffer.read!(Ops.sum!(rest, axis: 0))
  end

  test "a buffer of another type or shape, and no buffer" do
    for {name, args, opts} <- operations() do
      %{shape: shape, dtype: dtype} = apply(Ops, :"#{name}!", args ++ [opts])
      call = fn into -> apply(Ops, name, args ++ [[into: into] ++ opts]) end
      other = if dtype == :f64, do: :f32, else: :f64
      says = "option into of kernel #{name}"
      refused(call.(Buffer.zeros!(shape, other)), :type_mismatch, says: says)
      refused(call.(Buffer.zeros!([3 | shape], dtype)), :shape_mismatch, says: says)

      for none <- [nil, :x, View.new(Buffer.zeros!(shape, dtype))],
          do: refused(call.(none), :invalid_argument)
    end
  end

  test "the last kernel writes the buffer" do
    x = matrix([64, 64], :f32)
    at = Buffer.iota!([64], :s32)
    [out, line] = [Buffer.zeros!([64, 64], :f32), Buffer.zeros!([64], :f32)]
    [places, hot] = [Buffer.zeros!([64, 64], :s32), Buffer.zeros!([64, 64], :u8)]

    [pairs, few, few_rows] =
      for shape <- [[64, 64], [11, 64], [64, 11]], do: Buffer.zeros!(shape ++ [2], :f32)

    for {result, into} <- [
          {Reductions.run(:sum, x, [axis: 1], line), line},
          {Gathering.take(x, at, [], out), out},
          {Normalization.exponential(:softmax, x, [], out), out},
          {Movement.transpose(x, [], out), out},
          {Dot.matmul(x, x, out), out},
          {Sorting.sort(x, [], out), out},
          {Scan.run(:sum, x, [], out), out},
          {Windows.run(:window_sum, x, [1, 1], [], out), out},
          {Sorting.sort(x, [axis: 0], out), out},
          {Sorting.argsort(x, [axis: 0], places), places},
          {Movement.tile(line, [64, 1], out), out},
          {OneHot.run(at, 64, [], hot), hot},
          {Fourier.run(:fft, x, [real: true], pairs), pairs},
          {Fourier.run(:ifft, pairs, [axis: 0, length: 11], few), few},
          {Fourier.run_2d(:fft2, x, [real: true], pairs), pairs},
          {Fourier.rfft(x, [length: 20], few_rows), few_rows},
          {Fourier.irfft(few_rows, [length: 64], out), out}
        ] do
      case result do
        :ok -> :ok
        {:ok, buffer} -> assert Buffer.overlap?(buffer, into)
      end
    end
  end
end
