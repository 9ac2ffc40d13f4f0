defmodule ExCubecl.ArenaTest do
  # Bump allocation: tensors never overlap, can be dropped in any order, and are stale afterwards.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.Arena

  test "tensors have room of their own, and nothing of what was there before" do
    arena = Arena.new!(1_000_000)

    for round <- 1..3 do
      tensors =
        for i <- 1..50 do
          tensor = Arena.alloc!(arena, [i, 7], :u8)
          assert reason(Buffer.read(tensor)) == :not_allocated
          Buffer.fill!(tensor, i + round)
          tensor
        end

      for {tensor, i} <- Enum.with_index(tensors, 1),
          do: assert(Buffer.read!(tensor) == :binary.copy(<<i + round>>, i * 7))

      if rem(round, 2) == 0,
        do: Arena.reset!(arena),
        else: Arena.drop!(arena, Enum.shuffle(tensors))

      for tensor <- tensors, do: assert(reason(Buffer.read(tensor)) == :stale)
      assert Arena.used!(arena) == 0
    end
  end

  test "a drop is of all tensors or of none, in any order" do
    arena = Arena.new!(1000)
    [a, b, c] = for i <- 1..3, do: arena |> Arena.alloc!([4], :f32) |> tap(&Buffer.fill!(&1, i))
    refused(Arena.drop(arena, [c, Buffer.zeros!([4], :f32)]), :stale)
    refused(Arena.drop(arena, [c, Buffer.view!(c, 0, [2])]), :invalid_argument, says: "view")
    refused(Arena.drop(arena, [c, nil]), :invalid_argument)
    assert for(t <- [a, b, c], do: hd(Buffer.to_list!(t))) == [1.0, 2.0, 3.0]
    all = Arena.used!(arena)
    assert Arena.drop(arena, [b]) == :ok
    assert {reason(Buffer.read(b)), Arena.used!(arena)} == {:stale, all}
    refused(Arena.drop(arena, [b, c]), :stale)
    assert Buffer.to_list!(c) == [3.0, 3.0, 3.0, 3.0]
    assert Arena.drop(arena, c) == :ok
    assert Arena.used!(arena) < all
    refused(Arena.drop(arena, c), :stale)
    assert Arena.drop(arena, []) == :ok
    other = Arena.new!(1000)
    refused(Arena.drop(other, a), :stale, says: "does not belong to this pool or arena")
    assert Buffer.to_list!(a) == [1.0, 1.0, 1.0, 1.0]
  end

  test "a fixed arena is full at its size, an extendable one grows around its tensors" do
    fixed = Arena.new!(100, dtype: :f64, extendable: false)
    all = Arena.alloc!(fixed, [100])
    Buffer.fill!(all, 1.5)
    refused(Arena.alloc(fixed, [1]), :limit_exceeded, details: %{used: 800, capacity: 800})
    assert Arena.used!(fixed) == 100
    assert Buffer.to_list!(all) == List.duplicate(1.5, 100)
    assert {:ok, _} = Arena.alloc(fixed, [0])
    assert Arena.set_extendable(fixed, true) == :ok
    more = Arena.alloc!(fixed, [1000])
    Buffer.fill!(more, 2.5)
    assert Buffer.to_list!(all) == List.duplicate(1.5, 100)
    assert Arena.capacity!(fixed) >= 1100
    capacity = Arena.capacity!(fixed)
    Arena.reset!(fixed)
    assert Arena.capacity!(fixed) == capacity
    refused(Arena.set_extendable(fixed, :yes), :invalid_argument)
  end

  test "windows look at the whole arena" do
    arena = Arena.new!(100, dtype: :s32, extendable: false)
    kept = Arena.alloc!(arena, [10])
    refused(Arena.reshape(arena, [10]), :invalid_argument, says: "holds tensors")
    Arena.drop!(arena, kept)
    a = Arena.reshape!(arena, [10, 10])
    b = Arena.reshape!(arena, [5, 2], offset: 90)
    Buffer.fill!(a, 7)
    assert Buffer.to_flat_list!(b) == List.duplicate(7, 10)
    assert Buffer.overlap?(a, b) and Buffer.same_storage?(a, b)
    refused(Arena.alloc(arena, [1]), :invalid_argument, says: "holds windows")
    assert reason(Arena.reshape(arena, [11], offset: 90)) in [:out_of_bounds, :limit_exceeded]
    refused(Arena.reshape(arena, [1], offset: -1), :invalid_argument)
    assert Arena.used!(arena) == 100
    Arena.reset!(arena)
    assert reason(Buffer.read(b)) == :stale
    assert {:ok, _} = Arena.alloc(arena, [1])
    larger = Arena.new!(10, dtype: :u8)
    assert {:ok, window} = Arena.reshape(larger, [100_000])
    Buffer.fill!(window, 1)
    assert Arena.capacity!(larger) == 100_000
  end

  test "a detached tensor is seen by no aliasing check, and stale with its arena" do
    arena = Arena.new!(1000)
    a = Arena.alloc!(arena, [8], :u8)
    b = Arena.alloc!(arena, [8], :u8)
    Buffer.write!(a, [1, 2, 3, 4, 5, 6, 7, 8])
    free = Arena.detach!(a)
    assert Buffer.same_storage?(a, b)
    refute Buffer.same_storage?(a, free) or Buffer.overlap?(a, free)
    assert Buffer.storage_id!(free) != Buffer.storage_id!(a)
    assert reason(Buffer.copy(Buffer.view!(a, 0, [4]), Buffer.view!(a, 2, [4]))) == :overlap
    # The same copy is no longer refused, and the bytes are still right.
    assert Buffer.copy(Buffer.view!(free, 0, [6]), Buffer.view!(a, 2, [6])) == :ok
    assert Buffer.to_list!(free) == [1, 2, 1, 2, 3, 4, 5, 6]
    Arena.reset!(arena)
    assert reason(Buffer.read(free)) == :stale
  end

  test "a released arena has freed everything, as has one that nobody holds" do
    before = settled()
    arena = Arena.new!(1_000_000)
    tensor = Arena.alloc!(arena, [10], :u8)
    Buffer.fill!(tensor, 1)
    assert elem(live(), 0) >= 1_000_000
    assert {Arena.release(arena), Arena.release(arena), Arena.free(arena)} == {:ok, :ok, :ok}
    eventually(before)

    for call <- [&Arena.used/1, &Arena.capacity/1, &Arena.reset/1, &Arena.alloc(&1, [1], :u8)],
        do: assert(reason(call.(arena)) == :stale)

    assert reason(Buffer.read(tensor)) == :stale
    assert inspect(arena) =~ "stale"
    Task.await(Task.async(fn -> Arena.new!(2_000_000) |> Arena.used!() end))
    eventually(before)
  end

  test "what was measured is what it takes" do
    work = fn arena ->
      a = Arena.alloc!(arena, [1000], :f32)
      b = Arena.alloc!(arena, [3, 3], :f64)
      Buffer.write!(b, Enum.to_list(1..9))
      Arena.drop!(arena, [a, b])
      Arena.alloc!(arena, [700], :f32)
      Arena.reset!(arena)
    end

    {:ok, peak} = Arena.measure(work)
    assert {:ok, :ok} = Arena.scoped([size: peak], work)

    assert {:error, _} =
             Arena.scoped([size: peak - 80], fn arena ->
               Arena.alloc(arena, [1000, 1], :f32) && Arena.alloc(arena, [peak], :u8)
             end)
             |> elem(1)

    assert {:ok, elements} = Arena.measure([dtype: :f64], work)
    assert elements == div(peak + 7, 8)
    refused(Arena.measure(:junk), :invalid_argument)

    assert Arena.measure!(fn arena -> Arena.reshape!(arena, [50], dtype: :f32, offset: 50) end) ==
             400
  end

  test "a scope frees its arenas however it ends" do
    before = settled()
    assert Arena.scoped(1000, &Arena.capacity!/1) == {:ok, 1000}

    assert_raise RuntimeError, fn ->
      Arena.scoped([1000, [size: 10, dtype: :f32]], fn _, _ -> raise "x" end)
    end

    assert catch_throw(Arena.scoped(1000, fn _ -> throw(:x) end)) == :x
    assert catch_exit(Arena.scoped(1000, fn _ -> exit(:x) end)) == :x

    {:ok, tensor} =
      Arena.scoped(1000, &(&1 |> Arena.alloc!([1], :u8) |> tap(fn t -> Buffer.fill!(t, 1) end)))

    assert reason(Buffer.read(tensor)) == :stale
    assert reason(Arena.scoped([1000, 0], fn _, _ -> :never end)) == :invalid_argument
    refused(Arena.scoped(1000, fn -> :ok end), :invalid_argument)
    eventually(before)
  end

  test "each process has its own part, and gives it back on reset, release and death" do
    before = settled()
    arena = Arena.per_process!(1000, dtype: :f32, max: 2, extendable: false)
    assert Arena.used!(arena) == 0
    mine = Arena.alloc!(arena, [100])
    Buffer.fill!(mine, 1)
    parent = self()

    other =
      spawn(fn ->
        tensor = Arena.alloc!(arena, [900])
        Buffer.fill!(tensor, 2)
        send(parent, {:tensor, tensor, Arena.used!(arena)})
        Process.sleep(:infinity)
      end)

    assert_receive {:tensor, theirs, used}
    assert used >= 900 and Arena.used!(arena) < 200
    third = Task.async(fn -> Arena.alloc(arena, [1]) end)
    refused(Task.await(third, :infinity), :pool_exhausted, details: %{max: 2})
    refused(Arena.alloc(arena, [950]), :limit_exceeded)
    refused(Arena.drop(arena, theirs), :stale)
    Process.exit(other, :kill)
    eventually({elem(before, 0) + 4000, elem(before, 1) + 1})
    assert reason(Buffer.read(theirs)) == :stale
    assert Buffer.to_list!(mine) == List.duplicate(1.0, 100)
    assert Arena.reset(arena) == :ok
    assert reason(Buffer.read(mine)) == :stale
    eventually(before)
    again = Arena.alloc!(arena, [1])
    Buffer.fill!(again, 1)
    assert Arena.release(arena) == :ok
    assert {:ok, _} = Arena.alloc(arena, [1])
    assert Arena.free(arena) == :ok
    refused(Arena.alloc(arena, [1]), :stale)
    eventually(before)
  end

  test "many processes in one arena only see their own bytes, or stale tensors" do
    arena = Arena.new!(100_000)

    for i <- 1..20 do
      Task.async(fn ->
        for _ <- 1..50 do
          case Arena.alloc(arena, [100], :u8) do
            {:ok, tensor} ->
              with :ok <- Buffer.fill(tensor, i),
                   {:ok, bytes} <- Buffer.read(tensor),
                   do: assert(bytes == :binary.copy(<<i>>, 100))

              Arena.drop(arena, tensor)
              if i == 1, do: Arena.reset(arena)

            {:error, error} ->
              assert error.reason in [:stale, :limit_exceeded]
          end
        end
      end)
    end
    |> Task.await_many(:infinity)

    Arena.reset!(arena)
    assert Arena.used!(arena) == 0
  end

  test "options and arguments that make no sense" do
    for size <- [0, -1, 1.5, "1", Integer.pow(2, 64)],
        make <- [&Arena.new/1, &Arena.per_process/1, &Arena.new(size: &1)],
        do: refused(make.(size), :invalid_argument)

    refused(Arena.new(extendable: false), :invalid_argument, says: "needs one")
    refused(Arena.new(10, color: 1), :invalid_argument)
    refused(Arena.new(10, :junk), :invalid_argument)
    refused(Arena.new([size: 1], size: 2), :invalid_argument)
    refused(Arena.per_process(10, max: 0), :invalid_argument)
    assert reason(Arena.new(10, dtype: :f8)) == :unsupported_dtype
    assert reason(Arena.new(10, device: "cuda:99")) == :unknown_device
    assert reason(Arena.new(Integer.pow(2, 50))) == :too_large
    arena = Arena.new!(100)
    assert reason(Arena.alloc(arena, [1])) == :unsupported_dtype
    assert reason(Arena.alloc(arena, [-1], :u8)) == :invalid_shape
    assert reason(Arena.alloc(arena, [Integer.pow(2, 50)], :u8)) == :too_large

    for junk <- [nil, 1, %{}, %{arena | ref: 1}, %{arena | ref: make_ref()}, %{arena | size: nil}],
        call <- [&Arena.used/1, &Arena.alloc(&1, [1], :u8), &Arena.drop(&1, []), &Arena.free/1],
        do: refused(call.(junk), :invalid_argument)

    for junk <- [nil, %{arena | unit: 7}, %{arena | device: nil}],
        do: refute(inspect(junk) =~ "Inspect.Error")
  end
end
