# Where operations of each type run on a device that has the types of the device but those of EX_CUBECL_TEST_HIDDEN_DTYPES: prints, for each group of operations, the
# types that the host calculates, `{:rows, [{group, types}]}`. scripts/nx_table makes the table of guides/nx.md of it.

defmodule ExCubecl.NxTypesTable do
  @types [:f16, :bf16, :f32, :f64, :s8, :s16, :s32, :s64] ++
           [:u8, :u16, :u32, :u64, :c64, :c128, :f8, :f8_e4m3fn]

  # The operations of a group; a type of which Nx refuses one is left out.
  defp groups do
    indices = Nx.tensor([[0], [3]], type: :u32)
    choice = fn x, acc -> Nx.select(Nx.not_equal(x, acc), x, acc) end

    [
      {"`add multiply subtract negate`",
       &[
         Nx.add(&1, Nx.reverse(&1)),
         Nx.multiply(&1, &1),
         Nx.subtract(&1, 1),
         Nx.negate(&1)
       ]},
      {"`divide`", &[Nx.divide(&1, &1)]},
      {"`remainder`", &[Nx.remainder(&1, &1)]},
      {"`equal logical_and select`",
       &[Nx.equal(&1, Nx.reverse(&1)), Nx.logical_and(&1, &1), Nx.select(Nx.u8(1), &1, &1)]},
      {"`less greater max`",
       &[Nx.less(&1, Nx.reverse(&1)), Nx.greater(&1, 2), Nx.max(&1, Nx.reverse(&1))]},
      {"`exp log sin tanh sqrt`",
       &[Nx.exp(&1), Nx.log(&1), Nx.sin(&1), Nx.tanh(&1), Nx.sqrt(&1)]},
      {"`bitwise_and left_shift`", &[Nx.bitwise_and(&1, &1), Nx.left_shift(&1, 1)]},
      {"`population_count`", &[Nx.population_count(&1)]},
      {"`as_type` to and from `:f32`", &[Nx.as_type(Nx.as_type(&1, :f32), &1.type)]},
      {"`sum product`", &[Nx.sum(&1), Nx.product(&1)]},
      {"`all any`", &[Nx.all(&1), Nx.any(&1)]},
      {"`reduce_max argmax sort`", &[Nx.reduce_max(&1), Nx.argmax(&1), Nx.sort(&1)]},
      {"`cumulative_sum`", &[Nx.cumulative_sum(&1)]},
      {"`dot`", &[Nx.dot(&1, &1)]},
      {"`conv window_sum`",
       &[
         Nx.conv(Nx.reshape(&1, {1, 1, 8}), Nx.reshape(&1[0..1], {1, 1, 2})),
         Nx.window_sum(&1, {2})
       ]},
      {"`reduce` with a function", &[Nx.reduce(&1, Nx.tensor(2, type: &1.type), choice)]},
      {"`transpose concatenate pad put_slice`",
       &[
         Nx.transpose(Nx.reshape(&1, {2, 4})),
         Nx.concatenate([&1, &1]),
         Nx.pad(&1, 0, [{1, 1, 0}]),
         Nx.put_slice(&1, [1], &1[0..1])
       ]},
      {"`take gather indexed_add`",
       &[
         Nx.take(&1, Nx.flatten(indices)),
         Nx.gather(&1, indices),
         Nx.indexed_add(&1, indices, &1[0..1])
       ]},
      {"`fft`", &[Nx.fft(&1)]},
      {"`triangular_solve`", &[Nx.LinAlg.triangular_solve(Nx.eye(8, type: &1.type), &1)]}
    ]
  end

  def rows do
    Nx.default_backend({ExCubecl.Backend, host_limit: 0, fallback: :raise})

    for {group, operations} <- groups(),
        do: {group, Enum.filter(@types, &on_host?(&1, operations))}
  end

  defp on_host?(type, operations) do
    numbers = [1, 2, 3, 4, 5, 6, 7, 8]
    operations.(Nx.tensor(numbers, type: type))
    false
  rescue
    error in ExCubecl.Error -> error.reason == :unsupported || reraise(error, __STACKTRACE__)
    # Of Nx: there is no such operation.
    _error in ArgumentError -> false
  end
end

IO.inspect({:rows, ExCubecl.NxTypesTable.rows()},
  limit: :infinity,
  printable_limit: :infinity,
  width: 100_000
)
