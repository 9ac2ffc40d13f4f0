defmodule ExCubecl.NxBackendTest do
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, Buffer, Memory, View}
  alias ExCubecl.Nx.{Fallback, Storage}

  @types [f: 32, f: 64, f: 16, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  setup do
    Nx.default_backend({Backend, host_limit: 0})
    {:ok, device} = ExCubecl.default_device()
    %{device: device}
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  # The results of a function on both backends, as tensors of Nx.BinaryBackend.
  defp both(tensors, fun) do
    ours = fun |> apply(tensors) |> host()

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn -> apply(fun, Enum.map(tensors, &host/1)) end)

    {ours, theirs}
  end

  defp assert_same(what, tensors, fun) do
    {ours, theirs} = both(tensors, fun)

    assert {what, ours.type, ours.shape, ours.names} ==
             {what, theirs.type, theirs.shape, theirs.names}

    # Nx.BinaryBackend cuts off the digits that :bf16 does not have, and devices round: the last digit may differ.
    if theirs.type == {:bf, 16} do
      for {a, b} <- Enum.zip(Nx.to_flat_list(ours), Nx.to_flat_list(theirs)),
          do: assert({what, a, b, true} == {what, a, b, a == b or abs(a - b) <= abs(b) / 128})
    else
      assert {what, Nx.to_flat_list(ours)} == {what, Nx.to_flat_list(theirs)}
    end
  end

  defp fallbacks(fun) do
    before = Backend.fallbacks()
    result = fun.()
    {result, for({key, n} <- Backend.fallbacks(), n != Map.get(before, key, 0), do: key)}
  end

  # 120 elements, small integers among them negative ones and zeros where the type has them.
  defp sample({kind, _} = type) do
    numbers = for i <- 0..119, do: rem(i * 7, 23) - if(kind == :u, do: 0, else: 11)
    numbers |> Nx.tensor(type: type) |> Nx.reshape({4, 5, 6})
  end

  test "a deallocated tensor is shown with the reason why it has no elements" do
    x = Nx.iota({100}, type: :f32)
    Nx.backend_deallocate(x)

    assert inspect(x) =~
             ~r/^#Nx.Tensor<\n  f32\[100\]\n.*\n  \(the tensor was deallocated, by .*\)\n>$/
  end

  if {:from_pointer, 5} in Nx.Backend.behaviour_info(:callbacks) do
    test "pointers: addresses of CUDA, copies of what lies there, and what is refused" do
      tensor = Nx.iota({100}, type: :s32)
      pointer = fn fields -> struct(%Nx.Pointer{kind: :local, address: 1_024}, fields) end
      from = fn pointer, type -> Nx.from_pointer(Backend, pointer, type, {25}) end

      if match?({:cuda, _}, ExCubecl.default_device!()) do
        assert %Nx.Pointer{kind: :local, data_size: 400} = whole = Nx.to_pointer(tensor)
        assert Nx.to_flat_list(from.(whole, :s32)) == Enum.to_list(0..24)
        part = Nx.to_pointer(tensor[75..99])
        assert part.address == whole.address + 300
        assert Nx.to_flat_list(from.(part, :s32)) == Enum.to_list(75..99)

        raises(:invalid_argument, ~r/^from_pointer: .* no memory/, fn ->
          from.(pointer.([]), :u8)
        end)
      else
        raises(:unsupported, ~r/^to_pointer: .* only that of CUDA/, fn ->
          Nx.to_pointer(tensor)
        end)

        raises(:unsupported, ~r/^from_pointer: .* only that of/, fn ->
          from.(pointer.([]), :f32)
        end)
      end

      strided = Nx.transpose(Nx.iota({10, 10}))
      raises(:unsupported, ~r/^to_pointer: .* are strided/, fn -> Nx.to_pointer(strided) end)
      raises(:unsupported, ~r/^to_pointer: .* in host/, fn -> Nx.to_pointer(Nx.tensor(1)) end)
      refused = :invalid_argument
      raises(refused, ~r/^to_pointer: .*:local/, fn -> Nx.to_pointer(tensor, mode: :ipc) end)
      raises(refused, ~r/^to_pointer: /, fn -> Nx.to_pointer(tensor, mod: :local) end)
      raises(refused, ~r/kind :local/, fn -> from.(pointer.(kind: :ipc), :u8) end)
      raises(refused, ~r/kind :local/, fn -> from.(5, :u8) end)
      raises(refused, ~r/^from_pointer: .*address/, fn -> from.(pointer.(address: -1), :u8) end)
      raises(refused, ~r/^from_pointer: .*8 bits/, fn -> from.(pointer.([]), {:u, 2}) end)
      raises(:shape_mismatch, ~r/24.*25/, fn -> from.(pointer.(data_size: 24), :u8) end)
      Nx.backend_deallocate(tensor)
      raises(:stale, ~r/deallocated/, fn -> Nx.to_pointer(tensor) end)
    end

    defp raises(reason, message, call) do
      error = assert_raise ExCubecl.Error, call
      assert error.reason == reason
      assert Exception.message(error) =~ message
    end
  end

  test "every type is stored as it is, complex numbers included" do
    for type <- @types ++ [c: 64, c: 128] do
      tensor = Nx.iota({100}, type: type, backend: Nx.BinaryBackend)
      ours = Nx.backend_copy(tensor, Backend)
      assert %Backend{state: %View{}} = ours.data
      assert {type, Nx.to_binary(ours)} == {type, Nx.to_binary(tensor)}
      assert Nx.to_binary(Nx.reshape(ours, {4, 25})) == Nx.to_binary(tensor)
      assert inspect(Nx.to_flat_list(ours)) == inspect(Nx.to_flat_list(tensor))
    end
  end

  @binary [:add, :subtract, :multiply, :divide, :max, :min] ++
            [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
            [:logical_and, :logical_or, :logical_xor]

  test "arithmetic and comparisons of all types are those of Nx.BinaryBackend" do
    for type <- @types, name <- @binary do
      # No division by zero: Nx.BinaryBackend has another NaN there.
      a = sample(type)
      b = if name == :divide, do: Nx.max(Nx.reverse(a), 1), else: Nx.reverse(a)
      assert_same({name, type}, [a, b], &apply(Nx, name, [&1, &2]))
      assert_same({name, type, 2}, [a], &apply(Nx, name, [&1, 2]))
      assert_same({name, type, :row}, [a, Nx.add(b[0][0], 1)], &apply(Nx, name, [&1, &2]))
    end
  end

  test "mixed types become the types of Nx" do
    for one <- @types, other <- @types, one != other, name <- [:add, :multiply, :less] do
      assert_same({name, one, other}, [sample(one), sample(other)], &apply(Nx, name, [&1, &2]))
    end
  end

  test "integers: bits, shifts, remainders and quotients" do
    for {kind, _} = type <- @types, kind in [:s, :u] do
      a = sample(type)

      for name <- [:bitwise_and, :bitwise_or, :bitwise_xor],
          do: assert_same({name, type}, [a, Nx.reverse(a)], &apply(Nx, name, [&1, &2]))

      for name <- [:left_shift, :right_shift, :remainder, :quotient],
          by <- [1, 3],
          do:
            assert_same({name, type, by}, [a], &apply(Nx, name, [&1, Nx.tensor(by, type: type)]))

      assert_same({:bitwise_not, type}, [a], &Nx.bitwise_not/1)
    end

    numbers = Nx.tensor([-7, -4, 5, 7], type: :s32)
    assert Nx.to_flat_list(Nx.quotient(numbers, 2)) == [-3, -2, 2, 3]
    assert Nx.to_flat_list(Nx.remainder(numbers, 2)) == [-1, 0, 1, 1]
    assert_raise ArithmeticError, fn -> Nx.quotient(numbers, Nx.subtract(numbers, numbers)) end
  end

  test "roundings, signs and roots" do
    x = Nx.tensor(for(i <- -40..40, do: i / 8), type: :f32)

    for name <- [:abs, :negate, :ceil, :floor, :round, :sign],
        type <- [f: 32, f: 64, f: 16],
        do: assert_same({name, type}, [Nx.as_type(x, type)], &apply(Nx, name, [&1]))

    assert_same(:sqrt, [Nx.add(Nx.abs(x), 0.5)], &Nx.sqrt/1)

    assert Nx.to_number(Nx.cbrt(Nx.tensor(-8.0))) == -2.0
    third = Nx.divide(Nx.tensor([1.0], type: :f64), Nx.tensor([3.0], type: :f64))
    assert Nx.to_flat_list(third) == [0.3333333333333333]
  end

  test "functions are those of Nx.BinaryBackend up to the precision of the device" do
    x = Nx.tensor(for(i <- 1..100, do: i / 40), type: :f32)

    for name <-
          [:rsqrt, :exp, :log, :log1p, :sin, :cos, :tan, :sinh, :cosh, :tanh, :sigmoid] ++
            [:expm1, :erf, :erfc, :atan, :cbrt, :asinh] do
      {ours, theirs} = both([x], &apply(Nx, name, [&1]))

      assert {name, 1} ==
               {name, Nx.to_number(Nx.all_close(ours, theirs, rtol: 1.0e-4, atol: 1.0e-5))}
    end
  end

  test "conversions of all types to all types" do
    odd = Nx.tensor([1.5, -1.5, 300.7, -300.7, 70000.9, 0.0, -0.0, 65504.0], type: :f32)

    for from <- @types,
        to <- @types,
        do: assert_same({from, to}, [sample(from)], &Nx.as_type(&1, to))

    for {kind, _} = to <- @types,
        kind in [:s, :u],
        do: assert_same(to, [odd], &Nx.as_type(&1, to))

    # Nx.BinaryBackend of Nx 0.7.2 has 32,677 for the largest number of 16 bits.
    special = Nx.tensor([:nan, :infinity, :neg_infinity], type: :f32)
    assert Nx.to_flat_list(Nx.as_type(special, :s16)) == [0, 32_767, -32_768]

    for {kind, _} = to <- @types,
        kind in [:s, :u],
        to != {:s, 16},
        do: assert_same(to, [special], &Nx.as_type(&1, to))
  end

  test "reductions over axes" do
    for type <- @types,
        name <- [:sum, :product, :reduce_max, :reduce_min, :all, :any],
        opts <- [[], [axes: [1]], [axes: [0, 2]], [axes: [2], keep_axes: true]] do
      # Products stay within 24 bits.
      x =
        if name == :product,
          do: Nx.remainder(sample(type), Nx.tensor(2, type: type)),
          else: sample(type)

      assert_same({name, type, opts}, [x], &apply(Nx, name, [&1, opts]))
    end

    for name <- [:argmax, :argmin],
        type <- @types,
        opts <- [[], [axis: 1], [axis: 2, tie_break: :high], [axis: 0, keep_axis: true]],
        do: assert_same({name, type, opts}, [sample(type)], &apply(Nx, name, [&1, opts]))
  end

  test "products of matrices, with several axes and batches" do
    for type <- [f: 32, f: 64, s: 32, u: 8] do
      a = sample(type)
      assert_same({:matrices, type}, [a[0], Nx.transpose(a[1])], &Nx.dot/2)
      assert_same({:axes, type}, [a, a], &Nx.dot(&1, [1, 2], &2, [1, 2]))
      assert_same({:batches, type}, [a, a], &Nx.dot(&1, [2], [0], &2, [2], [0]))
      assert_same({:vectors, type}, [a[0][0], a[1][0]], &Nx.dot/2)
    end

    exact = Nx.dot(Nx.tensor([16_777_217, 1], type: :s32), Nx.tensor([1, 0], type: :s32))
    assert Nx.to_number(exact) == 16_777_217
  end

  test "moves of elements" do
    for type <- @types do
      a = sample(type)
      assert_same({:transpose, type}, [a], &Nx.transpose(&1, axes: [2, 0, 1]))
      assert_same({:reverse, type}, [a], &Nx.reverse(&1, axes: [0, 2]))
      assert_same({:slice, type}, [a], &Nx.slice(&1, [1, 0, 0], [2, 5, 6]))
      assert_same({:strided, type}, [a], &Nx.slice(&1, [1, 1, 1], [2, 3, 5], strides: [1, 2, 3]))

      assert_same(
        {:dynamic, type},
        [a],
        &Nx.slice(&1, [Nx.tensor(9), 0, Nx.tensor(-1)], [2, 5, 3])
      )

      assert_same({:concatenate, type}, [a, a], &Nx.concatenate([&1, &2], axis: 1))
      assert_same({:stack, type}, [a, a], &Nx.stack([&1, &2], axis: 1))
      assert_same({:broadcast, type}, [a[0][0]], &Nx.broadcast(&1, {3, 6, 2}, axes: [1]))
      assert_same({:pad, type}, [a], &Nx.pad(&1, 1, [{1, 2, 0}, {-1, 0, 1}, {0, -2, 0}]))

      assert_same(
        {:put_slice, type},
        [a, a[0][0]],
        &Nx.put_slice(&1, [3, 9, 0], Nx.new_axis(Nx.new_axis(&2, 0), 0))
      )

      assert_same({:select, type}, [a, Nx.reverse(a)], &Nx.select(Nx.greater(&1, 3), &1, &2))
      assert_same({:clip, type}, [a], &Nx.clip(&1, 2, 5))
      assert_same({:iota, type}, [], fn -> Nx.iota({3, 4, 5}, axis: 1, type: type) end)
      assert_same({:eye, type}, [], fn -> Nx.eye({2, 3, 4}, type: type) end)
    end
  end

  test "indices" do
    indices = Nx.tensor([[3, 0], [1, 1]], type: :s32)

    for type <- @types do
      a = sample(type)

      for axis <- 0..2,
          do: assert_same({:take, type, axis}, [a, indices], &Nx.take(&1, &2, axis: axis))

      assert_same({:gather, type}, [a, Nx.new_axis(indices, -1)], &Nx.gather(&1, &2, axes: [0]))
      order = Nx.broadcast(Nx.tensor([2, 1, 0, 3, 3]), {4, 5, 6}, axes: [1])
      assert_same({:along, type}, [a, order], &Nx.take_along_axis(&1, &2, axis: 1))
    end

    for index <- [-1, 4],
        do: assert_raise(ArgumentError, fn -> Nx.take(sample({:f, 32}), Nx.tensor([index])) end)
  end

  test "what a device cannot do runs on the host, is counted, and is sent to telemetry", %{
    device: device
  } do
    test = self()
    send_on = fn _event, numbers, metadata, _ -> send(test, {numbers, metadata}) end
    :telemetry.attach("fallback", [:ex_cubecl, :fallback], send_on, nil)
    x = Nx.iota({100, 2}, type: :f32)
    assert {result, [{:reduce, {:f, 32}, ^device}]} = fallbacks(fn -> reduced(x) end)
    assert Nx.to_number(result[1]) == 5.0
    assert %Backend{state: %View{}} = result.data
    assert_received {%{count: 1}, %{operation: :reduce, type: {:f, 32}, device: ^device}}
    assert {_, []} = fallbacks(fn -> Nx.add(Nx.iota({100}), 1) end)
  after
    :telemetry.detach("fallback")
  end

  # The function is no expression of scalars.
  defp reduced(x), do: Nx.reduce(x, 0.0, [axes: [1]], &Nx.sum(Nx.stack([&1, &2])))

  test "fallback: :raise names operation, type and device" do
    backend = {Backend, fallback: :raise, host_limit: 0}
    x = Nx.iota({100, 2}, type: :f32, backend: backend)
    error = assert_raise ExCubecl.Error, fn -> reduced(x) end
    assert {error.reason, error.details.operation} == {:unsupported, :reduce}
    assert Exception.message(error) =~ ~r/\w+:\d+ cannot run reduce with f32/
    assert Nx.to_number(Nx.sum(Nx.iota({100}, backend: backend))) == 4950
  end

  test "an overflow is an infinity, for small tensors too" do
    double = &Nx.tensor(&1, type: :f64, backend: Backend)
    quotients = Nx.divide(double.([1.0e300, 0.0]), double.(1.0e-300))
    assert Nx.to_flat_list(quotients) == [:infinity, 0.0]
    assert Nx.to_number(Nx.divide(double.(1.0e300), double.(1.0e-300))) == :infinity
  end

  test "small tensors stay on the host, larger ones are on the device" do
    small = Nx.iota({8, 8}, backend: Backend)
    assert is_binary(small.data.state)
    assert is_binary(Nx.add(small, small).data.state)
    assert %View{} = Nx.iota({8, 9}, backend: Backend).data.state
    assert {:fill, _} = Nx.broadcast(Nx.tensor(1.0, backend: Backend), {1_000, 1_000}).data.state
  end

  test "the device, the tag, and the allocations of tensors", %{device: {runtime, _} = device} do
    {:ok, %{id: other}} = ExCubecl.Device.open(device, as: {runtime, 1_717})
    x = Nx.iota({1_000}, type: :f32, backend: {Backend, device: other, tag: :of_nx})
    assert x.data.state.device == other
    assert Map.has_key?(Memory.report!(device: other).by_tag, :of_nx)
    assert Nx.add(x, x).data.state.device == other

    here = Nx.backend_transfer(x, {Backend, device: device})
    assert {here.data.state.device, Nx.to_number(here[999])} == {device, 999.0}
    assert_raise ExCubecl.Error, ~r/deallocated/, fn -> Nx.to_binary(x) end
    assert inspect(here) =~ "ExCubecl.Backend<#{runtime}:0>"
  end

  test "a deallocated tensor is refused" do
    x = Nx.iota({100})
    reshaped = Nx.reshape(x, {10, 10})
    assert Nx.backend_deallocate(x) == :ok
    assert Nx.backend_deallocate(x) == :already_deallocated

    for use <- [&Nx.to_binary/1, &Nx.add(&1, 1), &Nx.sum/1, &Nx.reshape(&1, {4, 25}), &Nx.sort/1],
        do: assert_raise(ExCubecl.Error, ~r/the tensor was deallocated/, fn -> use.(x) end)

    assert Nx.to_number(Nx.sum(reshaped)) == 4950
  end

  test "tensors of a reset device are refused", %{device: {runtime, _} = device} do
    {:ok, %{id: other}} = ExCubecl.Device.open(device, as: {runtime, 1_718})
    x = Nx.iota({100}, backend: {Backend, device: other})
    :ok = ExCubecl.Device.reset(other)
    error = assert_raise ExCubecl.Error, fn -> Nx.to_binary(x) end
    assert error.reason == :device_lost
    assert_raise ExCubecl.Error, fn -> Nx.add(x, 1) end
  end

  test "wrong options are refused" do
    for {options, reason} <- [
          {[device: {:cuda, 4_000}], :unknown_device},
          {[devise: :gpu], :invalid_argument},
          {[fallback: :never], :invalid_argument},
          {[host_limit: -1], :invalid_argument}
        ] do
      error = assert_raise ExCubecl.Error, fn -> Nx.tensor([1], backend: {Backend, options}) end
      assert {options, error.reason} == {options, reason}
    end
  end

  test "the compiler in place of the backend is refused" do
    assert_raise ExCubecl.Error,
                 ~r/^ExCubecl: invalid backend ExCubecl: expected ExCubecl.Backend;/,
                 fn ->
                   Nx.default_backend(ExCubecl)
                 end
  end

  test "tensors of this backend and buffers are copied on the device" do
    x = Nx.iota({10, 10}, type: :f32, names: [:a, :b])
    buffer = ExCubecl.Nx.from_tensor!(x)
    :ok = Buffer.fill(buffer, 7)
    assert Nx.to_number(x[9][9]) == 99.0
    back = ExCubecl.Nx.to_tensor!(buffer)
    assert %Backend{state: %View{}} = back.data
    assert Nx.to_number(Nx.sum(back)) == 700.0
    :ok = Buffer.fill(buffer, 8)
    assert Nx.to_number(Nx.sum(back)) == 700.0
    Nx.backend_deallocate(x)
    assert {:error, %{reason: :stale}} = ExCubecl.Nx.from_tensor(x)
  end

  test "data of another backend with the same fields is not taken for data of this one" do
    for tensor <- [Nx.tensor(1.0), Nx.iota({100})] do
      %{data: %{config: config} = data} = tensor
      assert Fallback.config([tensor]) == config

      foreign =
        %{data | config: Map.from_struct(config)} |> Map.put(:__struct__, Nx.TemplateBackend)

      other = %{tensor | data: foreign}
      assert Fallback.config([other]) == nil
      assert Storage.to_host(other) == other
      assert_raise FunctionClauseError, fn -> Storage.to_binary(other, 1) end
    end
  end

  test "batches, serialization, vectorized tensors" do
    x = Nx.iota({10, 3}, type: :f32)
    assert_same(:serialize, [x], &(&1 |> Nx.serialize() |> Nx.deserialize()))
    batches = fn x -> x |> Nx.to_batched(4) |> Enum.map(&host/1) end
    assert batches.(x) == Nx.with_default_backend(Nx.BinaryBackend, fn -> batches.(host(x)) end)
    assert_same(:vectorized, [x], &(&1 |> Nx.vectorize(:v) |> Nx.sum() |> Nx.devectorize()))
  end
end
