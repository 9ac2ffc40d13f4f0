defmodule ExCubecl.Buffer.HandleTest do
  use ExCubecl.Case, async: true

  alias ExCubecl.{Ops, Pool}
  alias ExCubecl.Buffer.Handle

  describe "release/1" do
    test "frees the memory at once, and makes the handle stale" do
      buffer = Buffer.iota!([1000], :u8)
      assert {Handle.release(buffer), Buffer.allocated?(buffer)} == {{:ok, true}, false}

      for {:error, error} <- [Buffer.read(buffer), Buffer.fill(buffer, 1), Ops.add(buffer, 1)],
          do: assert(error.reason == :stale)

      assert Handle.release(buffer) == {:ok, false}
    end

    test "changes nothing while another handle shares the memory" do
      buffer = Buffer.iota!([10], :u8)
      view = Buffer.view!(buffer, 2, [3])
      assert Handle.release(buffer) == {:ok, false}
      assert {Buffer.to_list!(view), Buffer.ref_count!(buffer)} == {[2, 3, 4], 2}
    end

    test "leaves memory of a pool to the pool" do
      pool = start_supervised!({Pool, shape: [4], dtype: :u8, max: 1})
      buffer = Pool.checkout!(pool)
      assert Handle.release(buffer) == {:ok, false}
      assert Pool.checkin(pool, buffer) == :ok
    end

    test "returns an error for any other term" do
      assert {:error, %{reason: :invalid_argument}} = Handle.release(:buffer)
    end
  end
end
