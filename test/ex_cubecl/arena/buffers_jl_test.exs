defmodule ExCubecl.BuffersJlTest do
  # The examples of the Buffers.jl guide, as ExCubecl calls.
  use ExCubecl.Case, async: false

  alias ExCubecl.Arena

  test "creating a buffer" do
    buffer = Arena.new!(dtype: :s64)
    assert {Arena.capacity!(buffer), Arena.extendable?(buffer)} == {0, true}
    tensor = Arena.alloc!(buffer, [5])
    Buffer.write!(tensor, [1, 2, 3, 4, 5])
    assert Buffer.to_list!(tensor) == [1, 2, 3, 4, 5]
    assert Arena.capacity!(Arena.new!(100, dtype: :f64)) == 100
  end

  test "MAllocBuffer and free!" do
    buffer = Arena.new!(1000, dtype: :f64, extendable: false)
    tensor = Arena.alloc!(buffer, [10, 10])
    Buffer.fill!(tensor, 1)
    assert Arena.free(buffer) == :ok
    assert reason(Buffer.read(tensor)) == :stale
    assert Arena.free(buffer) == :ok
  end

  test "ThreadsBuffer" do
    buffer = Arena.per_process!(1000, dtype: :f64)

    1..4
    |> Enum.map(fn i ->
      Task.async(fn ->
        a = Arena.alloc!(buffer, [10, 10])
        Buffer.fill!(a, i)
        assert Buffer.to_flat_list!(a) == List.duplicate(i * 1.0, 100)
        Arena.drop!(buffer, a)
        Arena.release(buffer)
      end)
    end)
    |> Task.await_many(:infinity)
    |> then(&assert &1 == [:ok, :ok, :ok, :ok])
  end

  test "@buffer with one and with two buffers" do
    assert {:ok, [10, 10]} =
             Arena.scoped([size: 1000, dtype: :s64], fn buf ->
               Arena.alloc!(buf, [10, 10]).shape
             end)

    assert {:ok, {:s64, :f64}} =
             Arena.scoped(
               [[size: 1000, dtype: :s64], [size: 2000, dtype: :f64]],
               fn buf1, buf2 ->
                 {Arena.alloc!(buf1, [10, 10]).dtype, Arena.alloc!(buf2, [20, 5]).dtype}
               end
             )
  end

  test "@threadsbuffer" do
    before = settled()

    Arena.scoped!([size: 1000, dtype: :f64, per_process: true], fn tbuf ->
      1..4
      |> Enum.map(fn _ ->
        Task.async(fn ->
          a = Arena.alloc!(tbuf, [10, 10])
          b = Arena.alloc!(tbuf, [20, 5])
          assert Arena.used!(tbuf) == 200
          Arena.drop!(tbuf, [a, b])
          Arena.reset(tbuf)
        end)
      end)
      |> Task.await_many(:infinity)
    end)

    eventually(before)
  end

  test "the complete example" do
    buffer = Arena.new!(1000, dtype: :f64)
    a = Arena.alloc!(buffer, [10, 10])
    b = Arena.alloc!(buffer, [20, 5])
    numbers = for _ <- 1..100, do: :rand.uniform()
    Buffer.write!(a, numbers)
    Buffer.write!(b, numbers)
    assert Buffer.to_flat_list!(a) == Buffer.to_flat_list!(b)
    assert Arena.drop(buffer, a) == :ok
    assert reason(Buffer.read(a)) == :stale
    assert Buffer.to_flat_list!(b) == numbers
    assert Arena.used!(buffer) == 200
    assert Arena.drop(buffer, b) == :ok
    assert Arena.used!(buffer) == 0
    c = Arena.reshape!(buffer, [10, 10])
    d = Arena.reshape!(buffer, [20, 5], offset: 100)
    Buffer.fill!(c, 1)
    Buffer.fill!(d, 2)
    assert {Buffer.shape!(c), Buffer.shape!(d)} == {[10, 10], [20, 5]}
    refute Buffer.overlap?(c, d)
    Arena.reset!(buffer)
    assert Arena.used!(buffer) == 0
    an = buffer |> Arena.alloc!([10, 10]) |> Arena.detach!()
    Buffer.fill!(an, 3)
    assert Buffer.to_flat_list!(an) == List.duplicate(3.0, 100)
  end
end
