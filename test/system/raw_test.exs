defmodule ExCubecl.RawTest do
  # Calls the native library with arguments that Elixir would refuse. EX_CUBECL_RAW_CALLS sets the number of calls.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Pool, RawCalls}

  @moduletag timeout: :infinity
  @corpus Path.expand("../corpus/raw.exs", __DIR__)

  if Code.ensure_loaded?(:proper) do
    setup do
      before = settled()
      {:ok, pool} = Pool.start_link(size: 8, max: 1_000_000)
      witness = ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)
      %{pool: pool, witness: witness, before: before}
    end

    test "random calls neither panic nor answer anything that is not ours", context do
      wanted = String.to_integer(System.get_env("EX_CUBECL_RAW_CALLS") || "20000")
      property = :proper.forall(RawCalls.call(), &good?(&1, context.pool))
      options = [:quiet, :noshrink, numtests: wanted, max_size: 30]

      # Add counterexamples that are found here to the corpus.
      caller =
        Task.async(fn ->
          :proper.quickcheck(property, options) == true || :proper.counterexample()
        end)

      case Task.yield(caller, 60_000 + 10 * wanted) do
        {:ok, outcome} -> assert outcome == true, inspect(outcome, limit: :infinity)
        nil -> flunk("no answer: #{inspect(stuck(caller.pid), limit: :infinity)}")
      end

      untouched(context)
    end

    defp stuck(pid) do
      {:dictionary, dictionary} = Process.info(pid, :dictionary)
      {dictionary[:call], Process.info(pid, [:current_stacktrace, :message_queue_len])}
    end

    test "calls that were worth keeping", context do
      {calls, _} = Code.eval_file(@corpus)
      assert length(calls) > 20

      for call <- calls,
          do: assert({call, RawCalls.run(call, RawCalls.world(context.pool))} == {call, :ok})

      untouched(context)
    end

    defp good?(call, pool) do
      world = RawCalls.world(pool)
      Process.put(:call, call)
      result = RawCalls.run(call, world)
      # Returns the buffer to the pool, unless the call did so.
      ExCubecl.Native.pool_checkin(pool, world.pool_buffer)
      flush()
      result == :ok
    end

    defp flush do
      receive do
        _ -> flush()
      after
        0 -> :ok
      end
    end

    defp untouched(%{witness: witness, pool: pool, before: before}) do
      assert ExCubecl.to_list!(witness) == [1.0, 2.0, 3.0]
      GenServer.stop(pool, :normal, 30_000)
      eventually({elem(before, 0) + 12, elem(before, 1) + 1})
      assert Buffer.size!(witness) == 12
    end
  else
    @tag :skip
    test "random calls neither panic nor answer anything that is not ours"
  end
end
