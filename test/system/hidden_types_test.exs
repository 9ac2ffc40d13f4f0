defmodule ExCubecl.HiddenTypesTest do
  # Devices that lack types: lavapipe has them all but bf16, and claims not to, in a VM of its own.
  use ExCubecl.Case, async: true

  # Runs a script that prints a term, on a device without these types.
  defp without(types, script),
    do: result_of(script, [{"EX_CUBECL_TEST_HIDDEN_DTYPES", Enum.join(types, ",")}])

  defp result_of(script, env) do
    script = """
    require ExCubecl.Kernel
    alias ExCubecl.{Buffer, Device, Ops}
    IO.inspect({:result, (fn -> #{script} end).()}, limit: :infinity, charlists: :as_lists, width: 10_000)
    """

    {out, errors, status} = in_own_vm(script, env)
    assert {status, errors} == {0, ""}
    [line] = Regex.run(~r/{:result, .*}/, out)
    {{:result, result}, _} = Code.eval_string(line)
    result
  end

  @narrow [:s8, :u8, :s16, :u16]
  @wide [:s64, :u64, :f64]

  test "the device does not name a hidden type" do
    {:ok, %{dtypes: all}} = Device.info(Device.default!())
    dtypes = without([:f64, :u8], "Device.info!(Device.default!()).dtypes")
    assert Enum.sort(dtypes) == Enum.sort(all -- [:f64, :u8])
  end

  test "a device without operations on planes refuses them by name, and has all of Ops" do
    script = """
    kernel = ExCubecl.Kernel.kernel(fn x, out -> out[index()] = plane_sum(x[index()]) end, group: 32)
    x = ExCubecl.buffer!(Enum.to_list(1..32), [32], :s32)
    {:error, error} = ExCubecl.Kernel.run(kernel, [x, Buffer.zeros!([32], :s32)])
    {error.reason, Exception.message(error), ExCubecl.item!(Ops.sum!(x))}
    """

    assert {:unsupported, message, 528} =
             result_of(script, [{"EX_CUBECL_TEST_HIDDEN_PLANES", "1"}])

    assert message =~ "plane_sum"
  end

  test "every type is stored, converted, viewed and moved" do
    types = @narrow ++ @wide ++ [:f16]

    results =
      without(types, """
      for dtype <- #{inspect(types)} do
        x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], dtype)
        list = &Enum.map(ExCubecl.to_flat_list!(&1), fn n -> trunc(n) end)

        moved = [
          Ops.transpose!(x),
          Ops.reverse!(x, axis: 1),
          Ops.slice!(x, [0, 1], [2, 2]),
          Ops.concatenate!([x, x], axis: 1),
          Ops.broadcast_to!(x, [2, 2, 3])
        ]

        kept = [Buffer.convert!(x, :f32), Buffer.view!(x, 3, [3]), Buffer.duplicate!(x)]
        {Enum.map(kept, list), Enum.map(moved, list)}
      end
      """)

    moved = [
      [1, 4, 2, 5, 3, 6],
      [3, 2, 1, 6, 5, 4],
      [2, 3, 5, 6],
      [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6],
      [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    ]

    all = [1, 2, 3, 4, 5, 6]
    for result <- results, do: assert(result == {[all, [4, 5, 6], all], moved})
  end

  test "element-wise operations of narrow types calculate with wider ones" do
    types = @narrow ++ [:f16]

    assert without(types, """
           for dtype <- #{inspect(types)} do
             x = ExCubecl.buffer!([1, 2, 100], [3], dtype)
             into = ExCubecl.buffer!([0, 0, 0], [3], dtype)
             :ok = Ops.multiply(x, x, into: into)
             sum = Ops.add!(x, x)
             less = Ops.less!(x, 2)
             list = &Enum.map(ExCubecl.to_list!(&1), fn n -> trunc(n) end)
             {ExCubecl.dtype!(sum), list.(sum), list.(into), list.(less), ExCubecl.dtype!(less)}
           end
           """) == [
             {"s8", [2, 4, -56], [1, 4, 16], [1, 0, 0], "u8"},
             {"u8", [2, 4, 200], [1, 4, 16], [1, 0, 0], "u8"},
             {"s16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"},
             {"u16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"},
             {"f16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"}
           ]
  end

  test "what cannot be calculated names the operation, the type and the device" do
    messages =
      without([:f64, :s64], """
      for dtype <- [:f64, :s64] do
        x = ExCubecl.buffer!([1, 2], [2], dtype)
        {:error, %{reason: reason} = error} = Ops.add(x, 1)
        {reason, Exception.message(error)}
      end
      """)

    {runtime, index} = Device.default!()

    for {{reason, message}, dtype} <- Enum.zip(messages, ["f64", "s64"]) do
      assert reason == :unsupported_dtype
      for part <- ["add", dtype, "#{runtime}:#{index}"], do: assert(message =~ part)
    end
  end

  # Index arithmetic must not need integers of 64 bits.
  test "operations of 32-bit types need no wider type" do
    assert without(@wide, """
           x = ExCubecl.buffer!([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0], [7.0, 9.0, 8.0]], [3, 3], :f32)
           image = Buffer.iota!([1, 1, 5, 5], :f32)
           kernel = Buffer.full!([2, 1, 3, 3], :f32, 1.0)
           at = ExCubecl.buffer!([2, 0], [2], :s32)
           vectors = ExCubecl.buffer!([[0, 1], [2, 2]], [2, 2], :s32)
           row = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
           back = ExCubecl.View.reverse!(x)
           plus = ExCubecl.Kernel.kernel(fn a, b -> a + b end)
           alias ExCubecl.{LinAlg, Random}
           # Not on the host, which has all types.
           :ok = LinAlg.Device.Operands.force()

           functions =
             for name <- ~w(exp expm1 log log1p sqrt rsqrt cbrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh
                            erf erfc erf_inv sigmoid negate abs floor ceil round sign is_nan)a,
                 do: {name, apply(Ops, name, [back])}

           others = [
             add: Ops.add(x, row |> Buffer.view!(0, [1])),
             pow: Ops.pow(x, 2.5),
             atan2: Ops.atan2(x, back),
             select: Ops.select(back, x, 0),
             sum: Ops.sum(back, axis: 0),
             mean: Ops.mean(back),
             variance: Ops.variance(x, axis: 1),
             norm: Ops.norm(x),
             logsumexp: Ops.logsumexp(back, axis: 1),
             argmax: Ops.argmax(back, axis: 0),
             cumulative_sum: Ops.cumulative_sum(back, axis: 0),
             cumulative_max: Ops.cumulative_max(x, axis: 1, reverse: true),
             sort: Ops.sort(back, axis: 0),
             argsort: Ops.argsort(back, direction: :desc),
             top_k: Ops.top_k(back, 2),
             unique: Ops.unique(back),
             softmax: Ops.softmax(back),
             log_softmax: Ops.log_softmax(x, axis: 0),
             layer_norm: Ops.layer_norm(back),
             rms_norm: Ops.rms_norm(back),
             matmul: Ops.matmul(back, x),
             dot: Ops.dot(x, back, contract_axes: {[0], [1]}),
             large: Ops.matmul(Buffer.full!([300, 300], :f32, 1.0), Buffer.full!([300, 300], :f32, 1.0)),
             conv: Ops.conv(image, kernel),
             window_max: Ops.window_max(image, [1, 1, 2, 2]),
             window_sum: Ops.window_sum(image, [1, 1, 2, 2], padding: :same),
             window_scatter_max: Ops.window_scatter_max(x, x, 0, [1, 1]),
             reduce: Ops.reduce(x, 0.0, plus, axis: 0),
             gather: Ops.gather(back, at),
             take: Ops.take(back, at, axis: 1),
             gather_nd: Ops.gather_nd(back, vectors),
             indexed_add: Ops.indexed_add(x, vectors, row),
             indexed_put: Ops.indexed_put(x, vectors, row),
             one_hot: Ops.one_hot(at, 3),
             fft: Ops.fft(x, real: true),
             rfft: Ops.rfft(image |> Buffer.reshape!([25])),
             pad: Ops.pad(back, 0.0, [{1, 1, 1}, {0, -1, 0}]),
             tile: Ops.tile(back, [2, 2]),
             eye: Ops.eye(3, :f32),
             iota: Ops.iota([2, 3], :f32, axis: 1),
             random: Ops.random_uniform([5], 1),
             normal: Random.normal(Random.key!(1), [5]),
             integers: Random.integers(Random.key!(1), [5], 0..9),
             lu: LinAlg.lu(x),
             cholesky: LinAlg.cholesky(Ops.eye!(64, :f32)),
             qr: LinAlg.qr(x),
             eigh: LinAlg.eigh(x),
             svd: LinAlg.svd(x),
             solve: LinAlg.solve(Ops.eye!(100, :f32), Buffer.full!([100], :f32, 1.0))
           ]

           for {name, {:error, error}} <- functions ++ others, do: {name, Exception.message(error)}
           """) == []
  end

  test "elements of 64 bits are selected as two words, at indices of 64 bits" do
    script = """
    for dtype <- [:s64, :u64, :f64] do
      x = ExCubecl.buffer!(for(i <- 0..5, do: if(i == 3, do: 0, else: i + 4_294_967_296)), [2, 3], dtype)
      at = fn list, shape, type -> ExCubecl.buffer!(list, shape, type) end
      list = &Enum.map(ExCubecl.to_flat_list!(&1), fn n -> trunc(n) - 4_294_967_296 end)
      far = at.([1, 4_294_967_296, 0], [3], :s64)
      put = at.([5, 6], [2, 1], :u64)
      into = Buffer.zeros!([2, 2], dtype)
      :ok = Ops.take(x, at.([2, 0], [2], :u64), axis: 1, into: into)

      [
        Ops.gather!(x, far),
        Ops.take!(x, at.([-4_294_967_295, 2], [1, 2], :s64), axis: 1),
        Ops.take_along_axis!(x, at.([2, 1], [2, 1], :u64), axis: 1),
        Ops.gather_nd!(x, at.([1, 2, 0, 0], [2, 2], :s64)),
        Ops.indexed_put!(x, put, Buffer.zeros!([2, 3], dtype)),
        Ops.indexed_put!(x, at.([1], [1, 1], :s32), Buffer.full!([1, 3], dtype, 4_294_967_303)),
        into
      ]
      |> Enum.map(list)
    end
    """

    none = -4_294_967_296

    expected = [
      [none, 4, 5, none, none, none, 0, 1, 2],
      [none, 2, none, 5],
      [2, 4],
      [5, 0],
      [0, 1, 2, none, 4, 5],
      [0, 1, 2, 7, 7, 7],
      [2, 0, 5, none]
    ]

    for types <- [[:s64, :u64], [:s64, :u64, :f64], [:f64], [:s64]],
        result <- without(types, script),
        do: assert(result == expected)
  end

  test "sums use the widest type that there is" do
    assert without([:s64, :u64], """
           for dtype <- [:s32, :u32, :f32] do
             sum = Ops.sum!(ExCubecl.buffer!([1, 2, 3], [3], dtype))
             {ExCubecl.dtype!(sum), trunc(ExCubecl.item!(sum))}
           end
           """) == [{"s32", 6}, {"u32", 6}, {"f32", 6}]
  end
end
