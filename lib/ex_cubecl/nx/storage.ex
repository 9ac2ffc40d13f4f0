if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Storage do
    @moduledoc false
    # The elements of a tensor of ExCubecl.Backend: where they are, and how they are made and read.
    #
    # The state is one of
    #
    #   * `{:fill, element}`: all elements are the same; `element` is the binary of one of them
    #   * a binary: a few elements, in host memory
    #   * an `ExCubecl.Buffer`: of the shape of the tensor; complex numbers are pairs along one more axis, and types of less than eight bits are
    #     a vector of bytes
    #
    # A buffer comes with `released`, an atomic integer that `backend_deallocate/1` sets.

    alias ExCubecl.{Backend, Buffer, DType, Error, Ops}
    alias ExCubecl.Nx.Types
    alias Nx.Tensor, as: T

    @doc "A tensor of a binary: on the host if it is small, else on the device."
    def from_binary(%T{} = out, binary, config) do
      if Nx.size(out.shape) <= config.host_limit,
        do: put(out, binary, config),
        else: put(out, upload(out, binary, config), config)
    end

    @doc "A tensor with the given state."
    def put(out, %Buffer{} = buffer, config),
      do: %{
        out
        | data: %Backend{state: buffer, config: config, released: :atomics.new(1, signed: false)}
      }

    def put(out, state, config), do: %{out | data: %Backend{state: state, config: config}}

    defp upload(%T{type: type} = tensor, binary, config) do
      options = buffer_options(config)

      case Types.storage(type) do
        nil -> Buffer.new!(whole_bytes(binary), [bytes_of(binary)], :u8, options)
        {dtype, _} -> Buffer.new!(binary, shape(tensor), dtype, options)
      end
    end

    # Integers of two and four bits may end within a byte.
    defp whole_bytes(bits) when is_binary(bits), do: bits

    defp whole_bytes(bits),
      do: <<bits::bitstring, 0::size(8 * bytes_of(bits) - bit_size(bits))>>

    defp bytes_of(bits), do: div(bit_size(bits) + 7, 8)

    @doc "The options with which buffers are made."
    def buffer_options(%{device: device, tag: nil}), do: [device: device]
    def buffer_options(%{device: device, tag: tag}), do: [device: device, tag: tag]

    @doc "The first `limit` elements of a tensor as a binary."
    def to_binary(%T{type: {_, bits}, data: %Backend{state: state}} = tensor, limit) do
      case state do
        {:fill, element} ->
          repeated(element, limit)

        %Buffer{dtype: dtype} ->
          count = div(limit * bits + 7, 8 * DType.size!(dtype))
          first_bits(Error.unwrap!(Buffer.read_part(live!(tensor), 0, count)), limit * bits)

        bits_of_all ->
          first_bits(bits_of_all, limit * bits)
      end
    end

    defp repeated(element, count) when is_binary(element), do: :binary.copy(element, count)
    defp repeated(element, count), do: for(_ <- 1..count, into: <<>>, do: element)

    defp first_bits(bits, count) when bit_size(bits) == count, do: bits

    defp first_bits(bits, count) do
      <<first::bitstring-size(count), _::bitstring>> = bits
      first
    end

    @doc "The buffer of a tensor, unless the tensor was deallocated."
    def live(%T{data: %Backend{state: buffer, released: released}}) do
      if :atomics.get(released, 1) == 0,
        do: {:ok, buffer},
        else: Error.new(:stale, tensor: :deallocated)
    end

    def live!(tensor), do: Error.unwrap!(live(tensor))

    @doc "The shape of the buffer of a tensor whose type is not stored as bytes."
    def shape(%T{type: type, shape: shape}),
      do: Tuple.to_list(shape) ++ elem(Types.storage(type), 1)

    @doc "The elements of a tensor in a buffer, which is made if there is none yet. The type must be one of buffers, or complex."
    def buffer(%T{data: %Backend{state: %Buffer{}}} = tensor, _config), do: live!(tensor)

    def buffer(%T{type: {:c, _}, data: %Backend{state: {:fill, _}}} = tensor, config) do
      one = upload(%{tensor | shape: {}}, to_binary(tensor, 1), config)
      Ops.broadcast_to!(one, shape(tensor))
    end

    def buffer(%T{data: %Backend{state: {:fill, element}}} = tensor, config) do
      value = number(element, tensor.type)
      Buffer.full!(tensor.shape, Types.dtype(tensor.type), value, buffer_options(config))
    end

    def buffer(%T{} = tensor, config), do: upload(tensor, Nx.to_binary(tensor), config)

    @doc "The number that all elements of a tensor are, if that is known without the device."
    def known_number(%T{type: type} = tensor) do
      case tensor.data do
        %Backend{state: {:fill, element}} ->
          {:ok, number(element, type)}

        %Backend{state: %Buffer{}} ->
          :error

        _ ->
          if Nx.size(tensor.shape) == 1,
            do: {:ok, number(Nx.to_binary(tensor), type)},
            else: :error
      end
    end

    defp number(element, type),
      do: Nx.to_number(on_host(%{Nx.template({}, type) | data: nil}, element))

    @doc "The tensor on Nx.BinaryBackend."
    def to_host(%T{data: %Backend{}} = tensor),
      do: on_host(tensor, to_binary(tensor, Nx.size(tensor.shape)))

    def to_host(other), do: other

    defp on_host(tensor, binary), do: Nx.BinaryBackend.from_binary(tensor, binary, [])

    @doc "Whether the elements of a tensor are in host memory and few."
    def small?(%T{data: data, shape: shape}, limit) do
      case data do
        %Backend{state: %Buffer{}} -> false
        _ -> Nx.size(shape) <= limit
      end
    end
  end
end
