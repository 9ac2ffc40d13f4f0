defmodule ExCubecl.HostileTest do
  # Random malformed calls of every public function return an error with a message or a valid value; predicates
  # raise ExCubecl.Error. No other exceptions, no endless calls, no leaked memory.
  use ExCubecl.Case, async: false

  alias ExCubecl.Junk

  @calls 3_000
  # Predicates raise where other functions return an error.
  @predicates ~w(allocated? same_storage? overlap?)a

  test "thousands of malformed calls" do
    seed = System.system_time(:microsecond)

    # The calls run in another process: messages and printed calls may keep buffers alive until it exits.
    before = settled()
    {pid, monitor} = spawn_monitor(fn -> storm(seed) end)

    receive do
      {:DOWN, ^monitor, :process, _, reason} ->
        assert reason == :normal, "seed #{seed}: #{Exception.format_exit(reason)}"
    after
      550_000 ->
        last = pid |> Process.info(:dictionary) |> elem(1) |> Keyword.get(:call)
        Process.exit(pid, :kill)
        flunk("seed #{seed}: no answer to #{inspect(last)}")
    end

    Memory.set_limit(nil)
    eventually(before)
  end

  defp storm(seed) do
    :rand.seed(:exsss, seed)
    witness = ExCubecl.buffer!([1.0, 2.0, 3.0, 4.0], [2, 2], :f32)

    for number <- 1..@calls do
      buffers = [
        ExCubecl.buffer!([1, 2, 3, 4], [4], :s16),
        Buffer.empty!([4], :f32),
        ExCubecl.buffer!([], [0, 3], :u8)
      ]

      {module, name, args} = Enum.random(calls(buffers))
      call = {module, name, args |> spoil() |> spoil()}
      Process.put(:call, call)
      check(call, number)
      if rem(number, 100) == 0, do: [[1.0, 2.0], [3.0, 4.0]] = Buffer.to_list!(witness)
    end
  end

  defp check({module, name, args} = call, number) do
    case apply(module, name, args) do
      {:error, error} ->
        assert is_struct(error, Error), "call #{number}, #{inspect(call)}: #{inspect(error)}"
        message = Exception.message(error)

        assert String.printable?(message) and byte_size(message) in 10..3_000,
               "call #{number}, #{inspect(call)}: #{inspect(message)}"

        # The fallback message of a reason without a message of its own: the details as a map.
        refute String.starts_with?(message, "#{error.reason}: %{"),
               "call #{number}, #{inspect(call)}: #{message}"

      value ->
        assert is_binary(inspect(value))
    end
  rescue
    error in Error ->
      assert name in @predicates or String.ends_with?(to_string(name), "!"), inspect(call)
      assert is_binary(Exception.message(error))

    error in ExUnit.AssertionError ->
      reraise error, __STACKTRACE__

    error ->
      flunk(
        "call #{number}, #{inspect(call)} raised #{Exception.format(:error, error, __STACKTRACE__)}"
      )
  after
    # A limit would refuse all later calls and hide their errors.
    if name in [:set_limit, :set_limit!], do: Memory.set_limit(nil)
  end

  # Twice replaces one argument, or none, by junk.
  defp spoil([]), do: []

  defp spoil(args) do
    case Enum.random(0..length(args)) do
      0 -> args
      place -> List.replace_at(args, place - 1, Junk.term())
    end
  end

  # Valid calls, whose arguments are then replaced. The calls with a bang are derived from them.
  defp calls([buffer, lazy, nothing]) do
    any = Enum.random([buffer, lazy, nothing, Buffer.view!(buffer, 1, [2])])
    transfer = Enum.random([make_ref(), Buffer.read_async!(buffer)])
    dtype = Enum.random(ExCubecl.supported_dtypes())

    plain = [
      {ExCubecl, :buffer, [[1, 2], [2], dtype]},
      {ExCubecl, :buffer, [<<1, 2>>, [2], :u8, [device: nil]]},
      {Buffer, :new, [[[1], [2]], {2, 1}, dtype, []]},
      {Buffer, :empty, [[2], dtype, [lazy: true]]},
      {Buffer, :empty, [[2], dtype, [lazy: false]]},
      {Buffer, :zeros, [[2], dtype, []]},
      {Buffer, :full, [[2], dtype, 1, []]},
      {Buffer, :iota, [[2], dtype, []]},
      {Buffer, :ensure_allocated, [any]},
      {Buffer, :view, [any, 1, [2]]},
      {Buffer, :slice_bytes, [any, 1, 2]},
      {Buffer, :reshape, [any, [2, 2]]},
      {Buffer, :bitcast, [any, dtype]},
      {Buffer, :clone, [any]},
      {Buffer, :duplicate, [any]},
      {Buffer, :convert, [any, dtype]},
      {Buffer, :transfer, [any, nil]},
      {Buffer, :write, [any, [1, 2], [offset: 1]]},
      {Buffer, :write, [any, [1, 2, 3, 4]]},
      {Buffer, :fill, [any, 1]},
      {Buffer, :copy, [buffer, any]},
      {Buffer, :read, [any]},
      {Buffer, :read_part, [any, 1, 2]},
      {Buffer, :read_all, [[buffer, any]]},
      {Buffer, :to_list, [any]},
      {Buffer, :to_flat_list, [any]},
      {Buffer, :item, [any]},
      {Buffer, :read_async, [any]},
      {Buffer, :await, [transfer, 10_000]},
      {Buffer, :shape, [any]},
      {Buffer, :dtype, [any]},
      {Buffer, :size, [any]},
      {Buffer, :device, [any]},
      {Buffer, :synchronize, [any]},
      {Buffer, :pointer, [any]},
      {Buffer, :copy_from_pointer, [any, any]},
      {Buffer, :id, [any]},
      {Buffer, :storage_id, [any]},
      {Buffer, :total_size, [any]},
      {Buffer, :ref_count, [any]}
    ]

    bang = for {module, name, args} <- plain, do: {module, :"#{name}!", args}

    plain ++
      bang ++
      [
        {Buffer, :allocated?, [any]},
        {Buffer, :same_storage?, [any, buffer]},
        {Buffer, :overlap?, [any, buffer]},
        {Device, :info, [nil]},
        {Device, :synchronize, [nil]},
        {Memory, :usage, [[device: nil]]},
        {Memory, :total, [[device: nil]]},
        {Memory, :trim, [[device: nil]]},
        {Memory, :reset_peak, [[device: nil]]},
        {Memory, :set_limit, [1_000_000, [device: nil]]},
        {ExCubecl.DType, :valid?, [dtype]}
      ]
  end
end
