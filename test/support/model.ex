if Code.ensure_loaded?(:proper) do
  defmodule ExCubecl.Model do
    @moduledoc false
    # A model of buffers as plain binaries, for PropEr's stateful testing. The state has each storage as its
    # bytes, or `:lazy`, and each handle as a window into a storage. A handle itself exists only when a
    # sequence runs, so the state holds PropEr's variable for it.

    alias ExCubecl.{Buffer, Conversion, DType, Error}

    import :proper_types, only: [bind: 3, elements: 1, frequency: 1, integer: 2, vector: 2]

    @dtypes DType.all()
    @shapes [[], [0], [1], [3], [7], [2, 3], [0, 4], [3, 1, 2], [33], [5, 5]]
    @floats [
      0.0,
      -0.0,
      1.0,
      -2.5,
      0.099975586,
      300.7,
      -1.0e30,
      1.0e-6,
      :nan,
      :infinity,
      :neg_infinity
    ]

    ## PropEr's callbacks

    def initial_state, do: %{handles: [], storages: %{}}

    def command(%{handles: []}), do: create()

    def command(state) do
      handle = elements(state.handles)
      use_one = fn weight, generator -> {weight, bind(handle, generator, false)} end

      frequency([
        {3, create()},
        use_one.(4, &view/1),
        use_one.(2, &slice/1),
        use_one.(1, fn {ref, at} -> call(:reshape, [ref, at, elements(same_size(at.shape))]) end),
        use_one.(1, fn {ref, at} -> call(:clone, [ref, at]) end),
        use_one.(1, fn {ref, at} -> call(:duplicate, [ref, at]) end),
        use_one.(1, fn {ref, at} -> call(:transfer, [ref, at]) end),
        use_one.(3, fn {ref, at} -> call(:convert, [ref, at, elements(@dtypes)]) end),
        use_one.(4, fn {ref, at} -> call(:write, [ref, at, data(at.dtype, at.count), form()]) end),
        use_one.(4, &write_part/1),
        use_one.(3, fn {ref, at} -> call(:fill, [ref, at, bits(at.dtype)]) end),
        use_one.(1, fn {ref, at} -> call(:ensure_allocated, [ref, at]) end),
        {3,
         bind(vector(2, handle), fn [{a, at}, {b, bt}] -> call(:copy, [a, at, b, bt]) end, false)},
        {1,
         bind(
           vector(2, handle),
           fn [{a, at}, {b, bt}] -> call(:compare, [a, at, b, bt]) end,
           false
         )},
        use_one.(4, fn {ref, at} ->
          call(:look, [
            ref,
            at,
            elements([:read, :to_list, :to_flat_list, :item, :read_async, :read_all])
          ])
        end),
        use_one.(3, fn {ref, at} ->
          call(:read_part, [ref, at, integer(0, at.count + 1), integer(0, at.count + 1)])
        end),
        use_one.(1, fn {ref, at} -> call(:facts, [ref, at]) end),
        use_one.(2, fn {ref, at} -> call(:forget, [ref, at]) end)
      ])
    end

    # Shrinking removes calls: the remaining calls must use handles that still exist, with the same window.
    def precondition(state, {:call, _, _, [_, name | args]}) do
      case {name, args} do
        {:create, _} ->
          true

        {name, [a, at, b, bt]} when name in [:copy, :compare] ->
          {a, at} in state.handles and {b, bt} in state.handles

        {_, [ref, at | _]} ->
          {ref, at} in state.handles
      end
    end

    def next_state(state, result, {:call, _, _, [_, name | args]}),
      do: step(state, result, name, args)

    def postcondition(state, {:call, _, _, [_, name | args]}, result),
      do: result_matches?(expected(state, name, args), result)

    ## Generators

    defp call(name, args), do: {:call, __MODULE__, :run, [elements([:here, :there]), name | args]}

    defp create do
      bind(
        {elements(@dtypes), elements(@shapes),
         elements([:new, :empty, :empty, :eager, :zeros, :full, :iota])},
        fn {dtype, shape, way} ->
          content = if way == :new, do: data(dtype, count(shape)), else: bits(dtype)
          call(:create, [way, dtype, shape, content, form()])
        end,
        false
      )
    end

    defp view({ref, at}) do
      bind(
        {integer(0, at.count), elements([[], [0], [1], [2], [2, 2], [at.count]])},
        fn {offset, shape} ->
          # Clamped to the buffer: a view that is refused makes no handle. Views out of range have their own tests.
          offset =
            if offset + count(shape) <= at.count,
              do: offset,
              else: max(at.count - count(shape), 0)

          shape = if offset + count(shape) <= at.count, do: shape, else: [0]
          call(:view, [ref, at, offset, shape])
        end,
        false
      )
    end

    defp slice({ref, at}) do
      bytes = at.count * DType.size!(at.dtype)

      bind(
        integer(0, bytes),
        fn offset -> call(:slice_bytes, [ref, at, offset, integer(0, bytes - offset)]) end,
        false
      )
    end

    defp write_part({ref, at}) do
      bind(
        {integer(0, at.count + 1), integer(0, at.count + 1)},
        fn {offset, count} ->
          call(:write_part, [ref, at, offset, data(at.dtype, count), form()])
        end,
        false
      )
    end

    defp form, do: elements([:binary, :flat, :nested])
    defp data(dtype, count), do: vector(count, bits(dtype))

    # Only floats whose bits a list determines.
    defp bits(dtype) when dtype in [:f16, :bf16, :f32, :f64],
      do: elements(Enum.map(@floats, &Conversion.bits(&1, dtype)))

    defp bits(dtype), do: integer(0, Integer.pow(2, 8 * DType.size!(dtype)) - 1)

    defp count(shape), do: Enum.product(shape)
    defp same_size(shape), do: [shape, [count(shape)], [1, count(shape)], [count(shape), 1, 1]]

    ## Expected results

    defp expected(state, name, args) do
      case {name, args} do
        {:copy, [_, at, _, bt]} ->
          copied(state, at, bt)

        {:compare, [_, at, _, bt]} ->
          {at.storage == bt.storage, overlap?(at, bt)}

        {:look, [_, at, way]} ->
          looked(state, at, way)

        {:read_part, [_, at, offset, count]} ->
          part(state, at, offset, count)

        {:write_part, [_, at, offset, data, _]} when offset + length(data) > at.count ->
          {:error, :out_of_bounds}

        {:facts, [_, at]} ->
          facts(state, at)

        {name, [_, at | _]} when name in [:duplicate, :transfer, :convert] ->
          if bytes(state, at) == :lazy, do: {:error, :not_allocated}, else: :handle

        {name, _} when name in [:write, :write_part, :fill, :ensure_allocated, :forget] ->
          :ok

        _ ->
          :handle
      end
    end

    defp result_matches?(:handle, result), do: match?(%Buffer{}, result)
    defp result_matches?(expected, result), do: expected == result

    defp looked(state, at, way) do
      case bytes(state, at) do
        _ when way == :item and at.count != 1 -> {:error, :shape_mismatch}
        :lazy -> {:error, :not_allocated}
        bytes -> {:ok, shown(bytes, at, way)}
      end
    end

    defp shown(bytes, at, way) do
      values = bytes |> Conversion.patterns(at.dtype) |> Enum.map(&Conversion.value(&1, at.dtype))

      case way do
        :to_list -> nest(values, at.shape)
        :to_flat_list -> values
        :item -> hd(values)
        :read_all -> [bytes, bytes]
        _ -> bytes
      end
    end

    defp part(state, at, offset, count) do
      size = DType.size!(at.dtype)

      case bytes(state, at) do
        _ when offset + count > at.count -> {:error, :out_of_bounds}
        _ when count == 0 -> {:ok, ""}
        :lazy -> {:error, :not_allocated}
        bytes -> {:ok, binary_part(bytes, offset * size, count * size)}
      end
    end

    defp copied(state, at, bt) do
      cond do
        at.dtype != bt.dtype -> {:error, :type_mismatch}
        at.count != bt.count -> {:error, :shape_mismatch}
        overlap?(at, bt) -> {:error, :overlap}
        bytes(state, at) == :lazy -> {:error, :not_allocated}
        true -> :ok
      end
    end

    defp facts(state, at) do
      {total, content} = state.storages[at.storage]
      {at.shape, Atom.to_string(at.dtype), size(at), total, content != :lazy or total == 0}
    end

    defp size(at), do: at.count * DType.size!(at.dtype)

    defp overlap?(at, bt) do
      at.storage == bt.storage and size(at) > 0 and size(bt) > 0 and
        at.start < bt.start + size(bt) and bt.start < at.start + size(at)
    end

    # A read of no elements does not need an earlier write.
    defp bytes(state, at) do
      case state.storages[at.storage] do
        _ when at.count == 0 -> ""
        {_, :lazy} -> :lazy
        {_, bytes} -> binary_part(bytes, at.start, size(at))
      end
    end

    ## State changes

    defp step(state, result, :create, [way, dtype, shape, content, _]) do
      count = count(shape)

      bytes =
        case way do
          :empty ->
            :lazy

          :new ->
            Conversion.binary(content, dtype)

          :full ->
            Conversion.binary(List.duplicate(content, count), dtype)

          :iota ->
            0..(count - 1)//1 |> Enum.map(&Conversion.bits(&1, dtype)) |> Conversion.binary(dtype)

          _ ->
            :binary.copy(<<0>>, count * DType.size!(dtype))
        end

      add_storage(state, result, dtype, shape, bytes)
    end

    defp step(state, result, :view, [_, at, offset, shape]),
      do:
        add(state, result, %{
          at
          | start: at.start + offset * DType.size!(at.dtype),
            shape: shape,
            count: count(shape)
        })

    defp step(state, result, :slice_bytes, [_, at, offset, len]),
      do:
        add(state, result, %{at | start: at.start + offset, shape: [len], count: len, dtype: :u8})

    defp step(state, result, :reshape, [_, at, shape]),
      do: add(state, result, %{at | shape: shape})

    defp step(state, result, :clone, [_, at]), do: add(state, result, at)

    defp step(state, result, name, [_, at | to]) when name in [:duplicate, :transfer, :convert] do
      case bytes(state, at) do
        :lazy ->
          state

        bytes when name == :convert ->
          add_storage(state, result, hd(to), at.shape, converted(bytes, at.dtype, hd(to)))

        bytes ->
          add_storage(state, result, at.dtype, at.shape, bytes)
      end
    end

    defp step(state, _, :write, [_, at, data, _]),
      do: change(state, at, 0, Conversion.binary(data, at.dtype))

    defp step(state, _, :write_part, [_, at, offset, data, _]) do
      if offset + length(data) <= at.count,
        do: change(state, at, offset, Conversion.binary(data, at.dtype)),
        else: state
    end

    defp step(state, _, :fill, [_, at, bits]),
      do: change(state, at, 0, Conversion.binary(List.duplicate(bits, at.count), at.dtype))

    defp step(state, _, :ensure_allocated, [_, at]) do
      {total, content} = state.storages[at.storage]
      content = if content == :lazy, do: :binary.copy(<<0>>, total), else: content
      put_in(state.storages[at.storage], {total, content})
    end

    defp step(state, _, :copy, [_, at, _, bt]) do
      if copied(state, at, bt) == :ok, do: change(state, bt, 0, bytes(state, at)), else: state
    end

    defp step(state, _, :forget, [ref, at]),
      do: %{state | handles: List.delete(state.handles, {ref, at})}

    defp step(state, _, _, _), do: state

    defp add(state, result, at), do: %{state | handles: [{result, at} | state.handles]}

    defp add_storage(state, result, dtype, shape, bytes) do
      id = map_size(state.storages)
      total = count(shape) * DType.size!(dtype)
      # A buffer without bytes is lazy, too, until its first write.
      state = put_in(state.storages[id], {total, bytes})

      add(state, result, %{storage: id, start: 0, shape: shape, count: count(shape), dtype: dtype})
    end

    # A write of no bytes leaves a lazy storage lazy.
    defp change(state, _at, _offset, ""), do: state

    defp change(state, at, offset, new) do
      {total, old} = state.storages[at.storage]
      old = if old == :lazy, do: :binary.copy(<<0>>, total), else: old
      start = at.start + offset * DType.size!(at.dtype)
      <<before::binary-size(start), _::binary-size(byte_size(new)), rest::binary>> = old
      put_in(state.storages[at.storage], {total, before <> new <> rest})
    end

    defp converted(bytes, from, from), do: bytes

    defp converted(bytes, from, to) do
      bytes
      |> Conversion.patterns(from)
      |> Enum.map(&(&1 |> Conversion.value(from) |> Conversion.bits(to)))
      |> Conversion.binary(to)
    end

    ## The real calls

    @doc "Runs a call in this process or in another one, which gets its handles sent."
    def run(:there, name, a), do: Task.await(Task.async(fn -> real(name, a) end), :infinity)
    def run(:here, name, a), do: real(name, a)
    def run(where, name, a, b), do: run(where, name, [a, b])
    def run(where, name, a, b, c), do: run(where, name, [a, b, c])
    def run(where, name, a, b, c, d), do: run(where, name, [a, b, c, d])
    def run(where, name, a, b, c, d, e), do: run(where, name, [a, b, c, d, e])

    defp real(:create, [way, dtype, shape, content, form]) do
      case way do
        :new -> Buffer.new(formed(content, dtype, shape, form), shape, dtype)
        :empty -> Buffer.empty(shape, dtype)
        :eager -> Buffer.empty(shape, dtype, lazy: false)
        :zeros -> Buffer.zeros(shape, dtype)
        :full -> Buffer.full(shape, dtype, Conversion.value(content, dtype))
        :iota -> Buffer.iota(shape, dtype)
      end
      |> plain()
    end

    defp real(:write, [buffer, at, data, form]),
      do: plain(Buffer.write(buffer, formed(data, at.dtype, at.shape, form)))

    defp real(:write_part, [buffer, at, offset, data, form]),
      do:
        plain(Buffer.write(buffer, formed(data, at.dtype, [length(data)], form), offset: offset))

    defp real(:fill, [buffer, at, bits]),
      do: plain(Buffer.fill(buffer, Conversion.value(bits, at.dtype)))

    defp real(:copy, [a, _, b, _]), do: plain(Buffer.copy(a, b))
    defp real(:compare, [a, _, b, _]), do: {Buffer.same_storage?(a, b), Buffer.overlap?(a, b)}
    defp real(:transfer, [buffer, _]), do: plain(Buffer.transfer(buffer, buffer.device))
    defp real(:forget, _), do: :ok

    defp real(:look, [buffer, _, :read_async]) do
      with({:ok, transfer} <- Buffer.read_async(buffer), do: Buffer.await(transfer, 60_000))
      |> tagged()
    end

    defp real(:look, [buffer, _, :read_all]), do: tagged(Buffer.read_all([buffer, buffer]))
    defp real(:look, [buffer, _, way]), do: tagged(apply(Buffer, way, [buffer]))

    defp real(:read_part, [buffer, _, offset, count]),
      do: tagged(Buffer.read_part(buffer, offset, count))

    defp real(:facts, [buffer, _]) do
      [shape, dtype, size] =
        for call <- [:shape!, :dtype!, :size!], do: apply(Buffer, call, [buffer])

      {shape, dtype, size, Buffer.total_size!(buffer), Buffer.allocated?(buffer)}
    end

    defp real(name, [buffer, _ | args]), do: plain(apply(Buffer, name, [buffer | args]))

    defp plain({:ok, value}), do: value
    defp plain(other), do: tagged(other)

    defp tagged({:error, %Error{reason: reason}}), do: {:error, reason}
    defp tagged(other), do: other

    defp formed(bits, dtype, _shape, :binary), do: Conversion.binary(bits, dtype)
    defp formed(bits, dtype, _shape, :flat), do: Enum.map(bits, &Conversion.value(&1, dtype))
    defp formed(bits, dtype, shape, :nested), do: nest(formed(bits, dtype, shape, :flat), shape)

    defp nest(values, []), do: hd(values)
    defp nest(values, [_]), do: values

    defp nest(values, [rows | shape]) do
      size = count(shape)
      for row <- 0..(rows - 1)//1, do: nest(Enum.slice(values, row * size, size), shape)
    end
  end
end
