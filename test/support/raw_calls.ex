if Code.ensure_loaded?(:proper) do
  defmodule ExCubecl.RawCalls do
    @moduledoc false
    # Calls of the NIFs without the checks in Elixir, for PropEr. Arguments are often almost valid, so that they
    # reach the edge cases of decoding.

    alias ExCubecl.{Arena, Buffer, DType, Native, Pool}

    import :proper_types, only: [any: 0, binary: 0, elements: 1, frequency: 1, list: 1, oneof: 1]

    # A device reset or a limit would affect all processes; the loading functions are not NIFs.
    @left_out ~w(load library_path load_error device_reset memory_set_limit memory_set_initial_limit)a
    @powers for power <- [0, 7, 8, 15, 16, 31, 32, 52, 53, 62, 63, 64, 65, 128, 1024],
                near <- [-1, 0, 1],
                sign <- [1, -1],
                do: sign * (Integer.pow(2, power) + near)

    def functions do
      for {name, arity} <- Native.__info__(:functions), name not in @left_out, do: {name, arity}
    end

    @doc "A function's name with arguments. Resources are given by name, as they live only while a call runs."
    def call do
      :proper_types.bind(elements(functions()), &with_arguments/1, false)
    end

    defp with_arguments({name, arity}),
      do: {name, :proper_types.fixed_list(List.duplicate(argument(), arity))}

    defp argument do
      frequency([
        {6,
         {:ours,
          elements(~w(buffer lazy view empty pool_buffer arena transfer pid pool device other)a)}},
        {3, elements(DType.all())},
        {3, oneof([list(size()), list(size())])},
        {2, size()},
        {2, elements([nil, true, false, :infinity, :nan, 0.0, -0.0, 1.5, 1.0e308, ""])},
        {2, binary()},
        {1, list(oneof([size(), elements([1.5, :nan, nil, [1], {1}])]))},
        {1,
         elements([
           [1 | 2],
           [[1, 2], [3 | 4]],
           <<1::3>>,
           {nil, nil, true},
           {"", <<131, 97>>, false}
         ])},
        {2, any()}
      ])
    end

    defp size, do: frequency([{4, elements(Enum.to_list(0..9))}, {1, elements(@powers)}])

    @doc "The resources by name."
    def world(pool) do
      buffer = ExCubecl.buffer!([1, 2, 3, 4], [4], :s16)

      %{
        buffer: buffer.ref,
        lazy: Buffer.empty!([4], :f32).ref,
        view: Buffer.view!(buffer, 1, [2]).ref,
        empty: Buffer.zeros!([0, 3], :u8).ref,
        pool_buffer: Pool.checkout!(pool).ref,
        arena: Arena.new!(1000).ref,
        transfer: Native.transfer_new(),
        pid: self(),
        pool: pool,
        device: ExCubecl.default_device!(),
        other: make_ref()
      }
    end

    @doc "Makes the call: `:ok`, or how it failed."
    def run({name, args}, world) do
      args = Enum.map(args, &named(&1, world))

      try do
        apply(Native, name, args)
      rescue
        ArgumentError -> :ok
        error in ErlangError -> if(error.original == :nif_panicked, do: :panicked, else: :ok)
        other -> {:raised, other}
      else
        {:error, {reason, details}} when is_atom(reason) and is_map(details) ->
          worded(reason, details)

        {:error, other} ->
          {:no_error_of_ours, other}

        _ ->
          :ok
      end
    end

    defp named({:ours, name}, world), do: Map.get(world, name, name)
    defp named(list, world) when is_list(list) and list != [], do: each(list, world)
    defp named(other, _world), do: other

    # The tail of an improper list is kept.
    defp each([head | tail], world), do: [named(head, world) | each(tail, world)]
    defp each(other, _world), do: other

    defp worded(reason, details) do
      {:error, error} = ExCubecl.Error.new(reason, details)
      if String.printable?(Exception.message(error)), do: :ok, else: {:unprintable, error}
    end
  end
end
