if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Storage do
    @moduledoc false
    # The elements of a tensor of ExCubecl.Backend: where they are, and how they are made and read.
    #
    # The state is one of
    #
    #   * `{:fill, element}`: all elements are the same; `element` is the binary of one of them
    #   * a binary: a few elements, in host memory; integers of less than eight bits are always there
    #   * an `ExCubecl.View` of the shape of the tensor, with one more axis for the parts of complex numbers
    #
    # A view comes with `released`, an atomic integer that `backend_deallocate/1` sets. Each tensor has a handle of its own, so that the number of
    # handles tells whether another tensor shares the memory.

    alias ExCubecl.{Buffer, DType, Error, View}
    alias ExCubecl.Buffer.Handle
    alias ExCubecl.Nx.{Movement, Options, Types}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    @doc "A tensor of a binary: on the host if it is small, else on the device."
    def from_binary(%T{} = out, binary, config) do
      if Tuple.product(out.shape) <= config.host_limit or Types.storage(out.type) == nil,
        do: put(out, binary, config),
        else: put(out, upload(out, binary, config), config)
    end

    @doc "A tensor with the given state, or with the elements of a buffer that no other tensor has."
    def put(out, %Buffer{} = buffer, config),
      do: put(out, View.new(%{buffer | shape: shape(out)}), config)

    def put(out, state, config) do
      released = if is_struct(state, View), do: :atomics.new(1, signed: false)
      %{out | data: %{config.data | state: state, config: config, released: released}}
    end

    @doc "A tensor whose elements are all the same."
    def fill(%{shape: {}} = out, element, config), do: put(out, element, config)
    def fill(out, element, config), do: put(out, {:fill, element}, config)

    @doc "A tensor of a view of the memory of another one."
    def share(out, view, config) do
      with {:ok, buffer} <- Buffer.clone(view.buffer),
           do: {:ok, put(out, %{view | buffer: buffer}, config)}
    end

    defp upload(tensor, binary, config) do
      {dtype, _} = Types.storage(tensor.type)
      Buffer.new!(binary, shape(tensor), dtype, buffer_options(config))
    end

    @doc "The options with which buffers are made."
    def buffer_options(%{device: device, tag: nil}), do: [device: device]
    def buffer_options(%{device: device, tag: tag}), do: [device: device, tag: tag]

    @doc "The shape of the view of a tensor."
    def shape(%T{type: type, shape: shape}) do
      {_dtype, parts} = Types.storage(type)
      Tuple.to_list(shape) ++ parts
    end

    ## Elements

    @doc "The first `limit` elements of a tensor as a binary."
    def to_binary(%T{type: {_, bits}, data: %{state: state, config: %Options{}}} = tensor, limit) do
      case state do
        {:fill, element} -> repeated(element, limit)
        %View{} -> read(live!(tensor), div(limit * bits, 8))
        bits_of_all -> first_bits(bits_of_all, limit * bits)
      end
    end

    defp read(view, bytes) do
      {:ok, buffer} = ok(Movement.contiguous(view))
      Error.unwrap!(Buffer.read_part(buffer, 0, div(bytes, DType.size!(buffer.dtype))))
    end

    defp ok(result), do: {:ok, Error.unwrap!(result)}

    defp repeated(element, count) when is_binary(element), do: :binary.copy(element, count)
    defp repeated(element, count), do: for(_ <- 1..count//1, into: <<>>, do: element)

    defp first_bits(bits, count) when bit_size(bits) == count, do: bits

    defp first_bits(bits, count) do
      <<first::bitstring-size(count), _::bitstring>> = bits
      first
    end

    @doc "The view of a tensor in device memory, unless the tensor was deallocated, or was sent here by another node."
    def live(%T{data: %{state: view, released: released, config: %Options{}}}) do
      cond do
        node(released) != node() -> of_other_node(released)
        :atomics.get(released, 1) == 0 -> {:ok, view}
        true -> Error.new(:stale, tensor: :deallocated)
      end
    end

    defp of_other_node(released),
      do: Error.new(:stale, tensor: :other_node, node: node(released))

    defp live!(tensor), do: Error.unwrap!(live(tensor))

    @doc "Deallocates a tensor in device memory: `:ok` or `:already_deallocated`."
    # The memory is freed with its last handle. Handles that shared it and are garbage by now would delay that.
    def release(%T{data: %{state: %View{}, released: released, config: %Options{}}})
        when node(released) != node(),
        do: Error.unwrap!(of_other_node(released))

    def release(%T{data: %{state: %View{buffer: buffer}, released: released, config: %Options{}}}) do
      if :atomics.exchange(released, 1, 1) == 0 do
        unless Error.unwrap!(Handle.release(buffer)) do
          :erlang.garbage_collect(self(), type: :minor)
          :erlang.yield()
          Error.unwrap!(Handle.release(buffer))
        end

        :ok
      else
        :already_deallocated
      end
    end

    @doc "The elements of a tensor as a view, for which they are uploaded if they are in host memory."
    def view(%T{data: %{state: %View{}, config: %Options{}}} = tensor, _config),
      do: live!(tensor)

    def view(%T{data: %{state: {:fill, element}, config: %Options{}}} = tensor, config) do
      one = View.new(upload(%{tensor | shape: {}}, element, config))
      Strides.broadcast(one, shape(tensor))
    end

    def view(%T{} = tensor, config), do: View.new(upload(tensor, Nx.to_binary(tensor), config))

    @doc "The views of tensors, or `:host` if buffers do not have the type of one of them."
    @spec views([T.t()], map) :: {:ok, [View.t()]} | :host
    def views(tensors, config) do
      if Enum.all?(tensors, &Types.dtype(&1.type)),
        do: {:ok, Enum.map(tensors, &view(&1, config))},
        else: :host
    end

    @doc "The elements of a tensor in a buffer, in row-major order."
    def buffer(tensor, config),
      do: tensor |> view(config) |> Movement.contiguous() |> Error.unwrap!()

    @doc "The number that all elements of a tensor are, if that is known without the device."
    def known_number(%T{type: type} = tensor) do
      case tensor.data do
        %{state: {:fill, element}, config: %Options{}} ->
          {:ok, number(element, type)}

        %{state: %View{}, config: %Options{}} ->
          :error

        _ ->
          if Tuple.product(tensor.shape) == 1,
            do: {:ok, number(tensor.data.state, type)},
            else: :error
      end
    end

    defp number(element, {:s, bits}) when bits >= 8 do
      <<number::signed-native-size(bits)>> = element
      number
    end

    defp number(element, {:u, bits}) when bits >= 8 do
      <<number::unsigned-native-size(bits)>> = element
      number
    end

    # Other bits are no numbers.
    defp number(<<number::float-native-32>>, {:f, 32}), do: number
    defp number(<<number::float-native-64>>, {:f, 64}), do: number

    defp number(element, type) do
      host = on_host(%{Nx.template({}, type) | data: nil}, element)
      Nx.to_number(host)
    end

    @doc "The tensor on Nx.BinaryBackend."
    def to_host(%T{data: %{config: %Options{}}} = tensor),
      do: on_host(tensor, to_binary(tensor, Nx.size(tensor.shape)))

    def to_host(other), do: other

    defp on_host(tensor, binary), do: Nx.BinaryBackend.from_binary(tensor, binary, [])

    @doc "Whether no element of a tensor in host memory is an infinity or NaN."
    def finite?(%T{type: {kind, bits}, data: %{state: state}}) when kind in [:f, :bf, :c] do
      elements = with {:fill, element} <- state, do: element
      all_finite?(elements, if(kind == :c, do: {:f, div(bits, 2)}, else: {kind, bits}))
    end

    def finite?(%T{type: {:f8_e4m3fn, 8}, data: %{state: state}}) do
      bytes = with {:fill, element} <- state, do: element
      for(<<_sign::1, 0x7F::7 <- bytes>>, do: :nan) == []
    end

    def finite?(_integers), do: true

    for bits <- [16, 32, 64] do
      defp all_finite?(
             <<_::float-native-size(unquote(bits)), rest::binary>>,
             {:f, unquote(bits)}
           ),
           do: all_finite?(rest, {:f, unquote(bits)})
    end

    defp all_finite?(<<word::native-16, rest::binary>>, {:bf, 16})
         when Bitwise.band(word, 0x7F80) != 0x7F80,
         do: all_finite?(rest, {:bf, 16})

    defp all_finite?(<<_sign::1, exponent::5, _::2, rest::binary>>, {:f, 8}) when exponent < 31,
      do: all_finite?(rest, {:f, 8})

    defp all_finite?(rest, _type), do: rest == <<>>

    @doc "Whether the elements of a tensor are in host memory."
    def on_host?(%T{data: %{state: %View{}, config: %Options{}}}), do: false
    def on_host?(%T{}), do: true

    @doc "Whether the elements of a tensor are in host memory and few."
    def small?(%T{data: data, shape: shape}, limit) do
      case data do
        %{state: %View{}, config: %Options{}} -> false
        _ -> shape == {} or Tuple.product(shape) <= limit
      end
    end
  end
end
