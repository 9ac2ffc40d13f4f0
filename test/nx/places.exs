defmodule ExCubecl.NxPlacesTest do
  # Loops that read and write few elements of a tensor at each step.
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, View}

  setup do
    Nx.default_backend(Backend)
    before = Backend.fallbacks()
    on_exit(fn -> assert Backend.fallbacks() == before end)
  end

  def counted(event, _measurements, _meta, test), do: send(test, event)

  # The launches and reads of a call.
  defp calls(fun) do
    events = [[:ex_cubecl, :launch], [:ex_cubecl, :read]]
    :ok = :telemetry.attach_many("places", events, &__MODULE__.counted/4, self())
    result = fun.()
    :telemetry.detach("places")
    {result, received(0)}
  end

  defp received(count) do
    receive do
      [:ex_cubecl | _] -> received(count + 1)
    after
      0 -> count
    end
  end

  defp on_device(tensor) do
    tensor = Nx.backend_copy(tensor, {Backend, host_limit: 64})
    assert %View{} = tensor.data.state
    tensor
  end

  defp numbers(shape, type), do: Nx.iota(shape, type: type, backend: Nx.BinaryBackend)

  # Insertion sort, element by element.
  defp sorted(x) do
    for i <- 1..(Nx.size(x) - 1), reduce: x do
      x ->
        {x, _} =
          Enum.reduce_while(i..1//-1, {x, i}, fn j, {x, _} ->
            [a, b] = [x[j - 1], x[j]]

            if Nx.to_number(Nx.less_equal(a, b)) == 1,
              do: {:halt, {x, j}},
              else: {:cont, {x |> put(j - 1, b) |> put(j, a), j}}
          end)

        x
    end
  end

  defp put(x, at, element) when rem(at, 2) == 0,
    do: Nx.indexed_put(x, Nx.tensor([[at]]), Nx.new_axis(element, 0))

  defp put(x, at, element), do: Nx.put_slice(x, [at], Nx.new_axis(element, 0))

  test "a loop over the elements of a tensor reads them once" do
    x = Nx.remainder(numbers({100}, :s32), 17)
    expected = Enum.sort(Nx.to_flat_list(x))
    x = on_device(x)
    {result, calls} = calls(fn -> sorted(x) end)
    assert Nx.to_flat_list(result) == expected
    assert calls < 60
  end

  test "few reads of a tensor do not wait for it" do
    x = on_device(numbers({10, 10}, :f32))
    parts = for i <- 0..3, do: x[i]
    assert Enum.all?(parts, &match?(%View{}, &1.data.state))
    # Tensors of more than 16 KiB stay on the device.
    large = on_device(numbers({100, 100}, :f32))
    for i <- 0..20, do: assert(%View{} = large[i][0].data.state)
    off = Nx.backend_copy(x, {Backend, host_limit: 0})
    for i <- 0..20, do: assert(%View{} = off[rem(i, 10)].data.state)
  end

  test "a deallocated tensor has no copy" do
    x = on_device(numbers({10, 10}, :f32))
    for i <- 0..20, do: x[0][rem(i, 10)]
    assert Nx.to_number(x[3][4]) == 34.0
    Nx.backend_deallocate(x)
    assert_raise ExCubecl.Error, fn -> Nx.to_number(x[3][4]) end
  end

  test "any reads and writes of few elements have the results of Nx.BinaryBackend" do
    :rand.seed(:exsss, {17, 2, 2026})
    cases = String.to_integer(System.get_env("NX_PLACES", "60"))

    for _ <- 1..cases do
      shape = Enum.random([{65}, {9, 11}, {3, 5, 7}, {64, 1, 2}])
      type = Enum.random([{:f, 32}, {:f, 16}, {:bf, 16}, {:s, 64}, {:u, 8}, {:c, 64}])
      x = Nx.as_type(numbers(shape, {:s, 32}), type)
      steps = for _ <- 1..Enum.random(1..25), do: step(shape, type)
      ours = Enum.reduce(steps, {Nx.backend_copy(x, Backend), []}, &taken/2)

      theirs =
        Nx.with_default_backend(Nx.BinaryBackend, fn -> Enum.reduce(steps, {x, []}, &taken/2) end)

      assert bits(ours) == bits(theirs)
    end
  end

  defp bits({x, read}), do: for(tensor <- [x | read], do: {tensor.shape, Nx.to_binary(tensor)})

  defp step(shape, type) do
    place = for n <- Tuple.to_list(shape), do: Enum.random(0..(n - 1))
    lengths = for {n, at} <- Enum.zip(Tuple.to_list(shape), place), do: Enum.random(1..(n - at))
    count = Enum.random(1..3)
    places = for _ <- 1..count, do: for(n <- Tuple.to_list(shape), do: Enum.random(0..(n - 1)))
    updates = for _ <- 1..count, do: Enum.random(0..50)

    Enum.random([
      {:slice, place, lengths},
      {:element, place},
      {:gather, places},
      {:take, Enum.random(0..(elem(shape, 0) - 1))},
      {:put_slice, place, Enum.random(0..50), type},
      {:indexed_put, places, updates, type},
      {:indexed_add, places, updates, type},
      {:reversed}
    ])
  end

  defp taken({:slice, place, lengths}, {x, read}), do: {x, [Nx.slice(x, place, lengths) | read]}

  defp taken({:element, place}, {x, read}) do
    starts = Enum.map(place, &Nx.tensor/1)
    {x, [Nx.slice(x, starts, Enum.map(place, fn _ -> 1 end)) | read]}
  end

  defp taken({:gather, places}, {x, read}), do: {x, [Nx.gather(x, Nx.tensor(places)) | read]}
  defp taken({:take, at}, {x, read}), do: {x, [Nx.take(x, Nx.tensor([at])) | read]}

  defp taken({:put_slice, place, number, type}, {x, read}) do
    one =
      number
      |> Nx.tensor(type: type)
      |> Nx.reshape(List.to_tuple(List.duplicate(1, length(place))))

    {Nx.put_slice(x, place, one), read}
  end

  defp taken({name, places, updates, type}, {x, read}),
    do: {apply(Nx, name, [x, Nx.tensor(places), Nx.tensor(updates, type: type)]), read}

  defp taken({:reversed}, {x, read}), do: {Nx.reverse(x), read}
end
