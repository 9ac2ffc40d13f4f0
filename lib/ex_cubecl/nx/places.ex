if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Places do
    @moduledoc false
    # Callbacks that read or write few elements of a tensor, as loops over its elements do. A launch and a wait for each of them take longer than one read of all
    # elements of a tensor that is not large: such a tensor stays in host memory, or is copied there once.
    #
    # Tensors do not change, so that a copy stays right. A process keeps the copies of the few tensors that it used last, by their `released`, which no two tensors share.

    alias ExCubecl.Native.Rehearsal
    alias ExCubecl.Nx.{Fallback, Options, Storage}
    alias ExCubecl.View
    alias Nx.Tensor, as: T

    @reads [:slice, :gather, :take]
    @writes [:put_slice, :indexed_put, :indexed_add]

    # The most bytes of a tensor: a copy, or an upload, takes about as long as a launch.
    @most 16_384

    # The read that copies a tensor from the device: fewer are as well made there, where they do not wait.
    @reads_before_copy 8

    # The most tensors that a process has copies of.
    @copies 8

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: @reads ++ @writes

    @doc "The result, in host memory, of a callback that uses few elements of a tensor that is or was copied there; `:none` for others."
    @spec run(atom, list, map) :: {:ok, T.t()} | :none
    def run(name, [out, tensor | rest], config) do
      with true <- few?(name, out, rest, config) and bytes(tensor) <= @most,
           {:ok, elements} <- known(name, tensor) do
        host = %{tensor | data: %Nx.BinaryBackend{state: elements}}
        {:ok, Fallback.on_host(name, [out, host | rest], config, &Storage.put/3)}
      else
        _ -> :none
      end
    rescue
      # As for small tensors: a device has infinity.
      ArithmeticError -> :none
    end

    # The operands besides the tensor must be small, and the elements that are read.
    defp few?(name, out, rest, %{host_limit: limit}) do
      small? = Enum.all?(Fallback.tensors([nil | rest]), &Storage.small?(&1, limit))
      small? and (name in @writes or Tuple.product(out.shape) <= limit)
    end

    defp bytes(%T{type: {_, bits}, shape: shape}), do: div(Tuple.product(shape) * bits, 8)

    ## Copies

    defp known(name, tensor),
      do: if(Rehearsal.on?(), do: rehearsed(), else: elements(name, tensor))

    # Whether there is a copy is known only to the process of a run.
    defp rehearsed do
      Rehearsal.mix()
      :none
    end

    # A write makes another tensor of all elements.
    defp elements(
           name,
           %T{data: %{state: %View{}, released: released, config: %Options{}}} = tensor
         ) do
      with {:ok, _view} <- Storage.live(tensor) do
        case List.keytake(copies(), released, 0) do
          {{_, copy}, others} when is_binary(copy) -> kept(released, copy, others)
          _ when name in @writes -> :none
          {{_, reads}, others} -> read(tensor, reads + 1, others)
          nil -> read(tensor, 1, copies())
        end
      end
    end

    defp elements(_name, %T{data: %{state: elements, config: %Options{}}})
         when is_binary(elements),
         do: {:ok, elements}

    defp elements(_name, %T{data: %{state: {:fill, _}, config: %Options{}}} = tensor),
      do: {:ok, Storage.to_binary(tensor, Tuple.product(tensor.shape))}

    defp elements(_name, _tensor), do: :none

    defp read(%T{shape: shape} = tensor, @reads_before_copy, others),
      do: kept(tensor.data.released, Storage.to_binary(tensor, Tuple.product(shape)), others)

    defp read(tensor, reads, others) do
      keep(tensor.data.released, reads, others)
      :none
    end

    defp kept(released, copy, others) do
      keep(released, copy, others)
      {:ok, copy}
    end

    defp copies, do: Process.get(__MODULE__, [])

    defp keep(released, what, others),
      do: Process.put(__MODULE__, [{released, what} | Enum.take(others, @copies - 1)])
  end
end
