defmodule ExCubecl.Soak.Worker do
  @moduledoc false
  # One process of the soak test: it holds buffers with known bytes, and makes one random call after another.

  alias ExCubecl.{Arena, Buffer, Kernel, Ops, Pool}
  alias ExCubecl.Soak.Calls

  require Kernel

  @most 16
  @sizes [0, 1, 3, 64, 777, 4096, 30_000, 200_000, 1_500_000]

  def start(shared, {round, slot, generation} = name) do
    :counters.add(shared.counts, 1, 1)

    spawn_link(fn ->
      :rand.seed(:exsss, {shared.seed + round * 1000, slot, generation})
      live(shared, name, [], :rand.uniform(300))
    end)
  end

  # Some workers exit normally, some with an error, some are killed before that.
  defp live(_shared, _name, _held, 0), do: if(:rand.uniform(2) == 1, do: exit(:bored), else: :ok)

  defp live(shared, name, held, steps) do
    :counters.add(shared.counts, 2, 1)

    held =
      shared |> step(:rand.uniform(19), take(shared, name, held)) |> settle(shared, name, held)

    live(shared, name, Enum.take(held, @most), steps - 1)
  end

  # A step returns the buffers that the worker now holds, or an error.
  defp settle({:error, error}, shared, name, held) do
    cond do
      Calls.no_room?(error) ->
        :counters.add(shared.counts, 3, 1)
        tl_or_empty(held)

      Calls.lost?(error) ->
        Enum.reject(held, fn {buffer, _} -> match?({:error, _}, Buffer.synchronize(buffer)) end)

      true ->
        wrong(shared, name, error)
    end
  end

  defp settle({:wrong, what}, shared, name, _held), do: wrong(shared, name, what)
  defp settle(held, _shared, _name, _before) when is_list(held), do: held

  defp wrong(shared, name, what) do
    send(shared.control, {:wrong, {name, what}})
    exit(:normal)
  end

  defp tl_or_empty([_ | rest]), do: rest
  defp tl_or_empty([]), do: []

  # Receives buffers from other workers, and requests to give a buffer to another worker.
  defp take(shared, name, held) do
    receive do
      {:give, other} when other != self() ->
        for {_, _} = item <- Enum.take(held, 1), do: send(other, {:take, item})
        take(shared, name, held)

      {:take, item} ->
        # Two workers now hold this buffer, so neither may change it.
        case check(item) do
          {:error, error} -> settle({:error, error}, shared, name, held)
          :ok -> held
          wrong -> settle(wrong, shared, name, held)
        end

      _ ->
        take(shared, name, held)
    after
      0 -> held
    end
  end

  defp check({buffer, bytes}) do
    case Calls.read(buffer, :rand.uniform(3)) do
      {:ok, ^bytes} -> :ok
      {:ok, other} -> {:wrong, {:bytes, buffer, difference(bytes, other)}}
      {:error, error} -> {:error, error}
    end
  end

  defp difference(bytes, other) do
    {:sizes, byte_size(bytes), byte_size(other), :common_prefix,
     :binary.longest_common_prefix([bytes, other])}
  end

  defp device(shared), do: Enum.random(shared.devices)
  defp opts(shared), do: [device: device(shared), tag: :rand.uniform(5)]
  defp bytes, do: :rand.bytes(Enum.random(@sizes))

  ## Creating

  defp step(shared, n, held) when n in 1..3 do
    bytes = bytes()

    with {:ok, buffer} <- Buffer.new(bytes, [byte_size(bytes)], :u8, opts(shared)),
         do: [{buffer, bytes} | held]
  end

  defp step(shared, 4, held) do
    numbers = for _ <- 1..:rand.uniform(500), do: :rand.uniform(65_536) - 32_769
    bytes = for n <- numbers, into: <<>>, do: <<n::16-native>>

    with {:ok, buffer} <- Buffer.new(numbers, [length(numbers)], :s16, opts(shared)),
         do: [{buffer, bytes} | held]
  end

  defp step(shared, 5, held) do
    {count, byte} = {Enum.random(@sizes), :rand.uniform(256) - 1}

    with {:ok, buffer} <- Buffer.empty([count], :u8, opts(shared)),
         :ok <- Buffer.fill(buffer, byte),
         do: [{buffer, :binary.copy(<<byte>>, count)} | held]
  end

  ## Writing: only to buffers that this step made and that no other process holds.

  defp step(shared, 6, held) do
    bytes = :rand.bytes(5000)
    {at, count} = {:rand.uniform(2000), :rand.uniform(2500)}
    part = :rand.bytes(count)
    <<before::binary-size(at), _::binary-size(count), rest::binary>> = bytes

    with {:ok, buffer} <- Buffer.new(bytes, [5000], :u8, opts(shared)),
         {:ok, view} <- Buffer.view(buffer, at, [count]),
         :ok <- Buffer.write(view, part),
         :ok <- check({view, part}),
         :ok <- check({buffer, before <> part <> rest}),
         do: [{buffer, before <> part <> rest} | held]
  end

  defp step(shared, 7, [{source, bytes} | _] = held) do
    with {:ok, target} <-
           Buffer.empty(source.shape, source.dtype, device: source.device, tag: :copy),
         :ok <- Buffer.copy(source, target),
         :ok <- check({target, bytes}) do
      [{target, bytes} | held]
    else
      {:error, %{reason: :not_allocated}} when bytes == "" -> held
      {:error, %{reason: :device_lost} = error} -> {:error, error}
      other -> other_device(other, shared, held)
    end
  end

  ## Reading

  defp step(_shared, n, [_ | _] = held) when n in 8..9 do
    with :ok <- check(Enum.random(held)), do: held
  end

  defp step(_shared, 10, [{buffer, bytes} | _] = held) when bytes != "" do
    {start, length} = window(byte_size(bytes))

    with {:ok, view} <- Buffer.slice_bytes(buffer, start, length),
         :ok <- check({view, binary_part(bytes, start, length)}),
         do: held
  end

  ## Other devices and types

  defp step(shared, 11, [{buffer, bytes} | _] = held) do
    with {:ok, there} <- Buffer.transfer(buffer, device(shared), tag: :moved),
         do: [{there, bytes} | held]
  end

  defp step(shared, 12, held) do
    bytes = :rand.bytes(Enum.random([1, 1000, 40_000]))

    with {:ok, buffer} <- Buffer.new(bytes, [byte_size(bytes)], :u8, opts(shared)),
         {:ok, floats} <-
           Buffer.convert(buffer, Enum.random([:f32, :f16, :bf16, :s16, :u64, :f64])),
         {:ok, back} <- Buffer.convert(floats, :u8),
         :ok <- check({back, bytes}),
         do: held
  end

  ## Pools and arenas

  defp step(shared, 13, held) do
    pool = Enum.random(shared.pools)

    with {:ok, buffer} <- Pool.checkout(pool, timeout: 20), :ok <- lent(buffer) do
      if :rand.uniform(2) == 1,
        do: given_back(buffer, Pool.checkin(pool, buffer), held),
        else: held
    end
  end

  defp step(shared, 14, held) do
    case Arena.scoped([size: 20_000, device: device(shared)], &tensors/1) do
      {:ok, :ok} -> held
      {:ok, wrong} -> wrong
      {:error, error} -> {:error, error}
    end
  end

  defp step(shared, 15, held) do
    arena = Enum.random(shared.arenas)

    with {:ok, tensor} <- Arena.alloc(arena, [:rand.uniform(3000)], :u8), :ok <- lent(tensor) do
      if :rand.uniform(3) == 1, do: given_back(tensor, Arena.reset(arena), held), else: held
    end
  end

  defp step(shared, 16, held) do
    with {:ok, buffer} <- Pool.get_buffer(:rand.uniform(60_000), device: device(shared)),
         :ok <- lent(buffer) do
      if :rand.uniform(2) == 1,
        do: given_back(buffer, Pool.return_buffer(buffer), held),
        else: held
    end
  end

  ## Kernels, without waiting for them: their inputs are dropped, changed and lent to other processes meanwhile.

  defp step(_shared, 17, [{buffer, bytes} | _] = held) when byte_size(bytes) in 1..40_000 do
    keys = for _ <- 1..:rand.uniform(6), do: :rand.uniform(256) - 1
    expected = for <<byte <- bytes>>, into: <<>>, do: <<Enum.reduce(keys, byte, &Bitwise.bxor/2)>>

    with {:ok, bytes_of} <- Buffer.slice_bytes(buffer, 0, byte_size(bytes)),
         {:ok, last} <- changed(bytes_of, keys),
         :ok <- check({last, expected}),
         do: [{last, expected} | held]
  end

  defp step(shared, 18, held) do
    bytes = :rand.bytes(4 * :rand.uniform(2000))
    count = div(byte_size(bytes), 4)
    reversed = for(<<word::binary-4 <- bytes>>, do: word) |> Enum.reverse() |> Enum.join()

    with {:ok, words} <- Buffer.new(bytes, [count], :u32, opts(shared)),
         {:ok, target} <- Buffer.empty([count], :u32, device: words.device),
         :ok <- Kernel.run(reverse(), [words, target]),
         :ok <- Buffer.fill(words, 7),
         :ok <- check({target, reversed}),
         do: [{target, reversed} | held]
  end

  defp step(shared, 19, held) do
    bytes = :rand.bytes(:rand.uniform(5000))
    sum = Enum.sum(:binary.bin_to_list(bytes))

    with {:ok, buffer} <- Buffer.new(bytes, [byte_size(bytes)], :u8, opts(shared)),
         {:ok, total} <- Ops.sum(buffer),
         {:ok, found} <- Buffer.item(total),
         do: if(found == sum, do: held, else: {:wrong, {:sum, sum, found}})
  end

  defp step(_shared, _n, held), do: Enum.drop(held, -1)

  defp reverse, do: Kernel.kernel(fn x, out -> out[len(x) - 1 - index()] = x[index()] end)

  defp changed(buffer, keys) do
    kernel = Kernel.kernel(fn x, key -> bxor(x, key) end)

    Enum.reduce_while(keys, {:ok, buffer}, fn key, {:ok, before} ->
      case Kernel.run(kernel, [before, key], tag: :changed) do
        {:ok, next} -> {:cont, {:ok, next}}
        error -> {:halt, error}
      end
    end)
  end

  # A call after the first one may find the device lost, or without free memory.
  defp other_device({:error, error}, _shared, held),
    do: if(Calls.no_room?(error), do: held, else: {:error, error})

  defp other_device(wrong, _shared, _held), do: wrong

  defp window(size) do
    start = :rand.uniform(size) - 1
    {start, :rand.uniform(size - start)}
  end

  # A lent buffer is unreadable until it is written, and then has only the bytes that were written.
  defp lent(buffer) do
    case Buffer.read(buffer) do
      {:error, %{reason: :not_allocated}} ->
        bytes = :rand.bytes(hd(buffer.shape))
        with :ok <- Buffer.write(buffer, bytes), do: check({buffer, bytes})

      {:ok, bytes} ->
        {:wrong, {:seen_before_it_was_written, byte_size(bytes)}}

      {:error, error} ->
        {:error, error}
    end
  end

  defp given_back(buffer, :ok, held) do
    case Buffer.read(buffer) do
      {:error, %{reason: reason}} when reason in [:stale, :device_lost] -> held
      other -> {:wrong, {:after_it_was_given_back, other}}
    end
  end

  defp given_back(_buffer, {:error, error}, _held), do: {:error, error}

  defp tensors(arena) do
    with {:ok, a} <- Arena.alloc(arena, [1 + :rand.uniform(9000)], :u8),
         {:ok, b} <- Arena.alloc(arena, [:rand.uniform(9000)], :u8),
         :ok <- lent(a),
         :ok <- lent(b),
         do: Arena.drop(arena, Enum.random([a, b, [a, b]]))
  end
end
