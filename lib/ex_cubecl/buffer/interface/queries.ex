defmodule ExCubecl.Buffer.Interface.Queries do
  @moduledoc false
  # Functions of `ExCubecl.Buffer` that ask about a buffer: documentation, specs and the modules that implement them.

  alias ExCubecl.{DType, Device, Error, Shape}
  alias ExCubecl.Buffer.Info
  alias ExCubecl.Error.Arguments

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, shape}`, a list of dimensions.

          iex> ExCubecl.Buffer.shape(ExCubecl.Buffer.zeros!({2, 3}, :f32))
          {:ok, [2, 3]}
      """
      @spec shape(t) :: result([non_neg_integer])
      def shape(buffer), do: with({:ok, buffer} <- check(buffer), do: {:ok, buffer.shape})

      @doc """
      Returns `{:ok, dtype}` as a string. The field `dtype` of a buffer is the atom that other functions take.

          iex> buffer = ExCubecl.Buffer.zeros!([1], :bf16)
          iex> ExCubecl.Buffer.dtype(buffer)
          {:ok, "bf16"}
          iex> ExCubecl.to_list!(ExCubecl.Buffer.zeros!([2], buffer.dtype))
          [0.0, 0.0]
      """
      @spec dtype(t) :: result(String.t())
      def dtype(buffer),
        do: with({:ok, buffer} <- check(buffer), do: {:ok, Atom.to_string(buffer.dtype)})

      @doc """
      Returns `{:ok, bytes}` of the buffer's elements.

          iex> ExCubecl.Buffer.size(ExCubecl.Buffer.zeros!([3], :f64))
          {:ok, 24}
      """
      @spec size(t) :: result(non_neg_integer)
      def size(buffer),
        do:
          with(
            {:ok, buffer} <- check(buffer),
            do: {:ok, Shape.size(buffer.shape) * DType.size!(buffer.dtype)}
          )

      @doc """
      Returns `{:ok, id}` of the device that holds the buffer.

          iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
          iex> ExCubecl.Buffer.device(buffer) == ExCubecl.default_device()
          true
      """
      @spec device(t) :: result(Device.id())
      def device(buffer), do: with({:ok, buffer} <- check(buffer), do: {:ok, buffer.device})

      @doc """
      Returns `{:ok, id}` of this handle. Each handle, views and clones included, has a unique id; ids are never
      reused.

          iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
          iex> ExCubecl.Buffer.id!(buffer) == ExCubecl.Buffer.id!(ExCubecl.Buffer.clone!(buffer))
          false
      """
      @spec id(t) :: result(pos_integer)
      def id(buffer), do: route(buffer, &Info.id/1)

      @doc """
      Returns `{:ok, id}` of the storage, the same for all handles that share it.

          iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
          iex> clone = ExCubecl.Buffer.clone!(buffer)
          iex> ExCubecl.Buffer.storage_id!(buffer) == ExCubecl.Buffer.storage_id!(clone)
          true
      """
      @spec storage_id(t) :: result(pos_integer)
      def storage_id(buffer), do: route(buffer, &Info.storage_id/1)

      @doc """
      Returns `{:ok, bytes}`, the size of the buffer's storage; for a view this may be more than the size of the view.

          iex> view = ExCubecl.Buffer.view!(ExCubecl.Buffer.zeros!([100], :f32), 0, [1])
          iex> ExCubecl.Buffer.total_size(view)
          {:ok, 400}
      """
      @spec total_size(t) :: result(non_neg_integer)
      def total_size(buffer), do: route(buffer, &Info.total_size/1)

      @doc """
      Returns `{:ok, count}`, the number of handles that share the storage now. A handle that is garbage but was not collected yet
      still counts.

          iex> ExCubecl.Buffer.ref_count(ExCubecl.Buffer.zeros!([1], :f32))
          {:ok, 1}
      """
      @spec ref_count(t) :: result(pos_integer)
      def ref_count(buffer), do: route(buffer, &Info.ref_count/1)

      @doc """
      Returns whether two buffers share one storage.

          iex> buffer = ExCubecl.Buffer.zeros!([4], :u8)
          iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.reshape!(buffer, [2, 2]))
          true
          iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.duplicate!(buffer))
          false
      """
      @spec same_storage?(t, t) :: boolean
      def same_storage?(a, b), do: related?(:same_storage?, a, b, &Info.same_storage/2)

      @doc """
      Returns whether two buffers share at least one byte.

          iex> buffer = ExCubecl.Buffer.zeros!([10], :u8)
          iex> left = ExCubecl.Buffer.view!(buffer, 0, [5])
          iex> right = ExCubecl.Buffer.view!(buffer, 5, [5])
          iex> {ExCubecl.Buffer.overlap?(left, right), ExCubecl.Buffer.overlap?(left, buffer)}
          {false, true}
      """
      @spec overlap?(t, t) :: boolean
      def overlap?(a, b), do: related?(:overlap?, a, b, &Info.overlap/2)

      @doc """
      Returns `:ok` once all queued work is done, on the device of a buffer or on a device.

      Errors: those of earlier work that no call has waited for.

          iex> buffer = ExCubecl.Buffer.full!([1000], :f32, 1)
          iex> ExCubecl.Buffer.synchronize(buffer)
          :ok
      """
      @spec synchronize(t | Device.id() | Device.t()) :: :ok | {:error, Error.t()}
      def synchronize(%__MODULE__{} = buffer), do: route(buffer, &Info.synchronize/1)

      def synchronize(device) when is_tuple(device) or is_struct(device, Device),
        do: Device.synchronize(device)

      def synchronize(other),
        do: Arguments.invalid(:buffer, other, "an %ExCubecl.Buffer{} or a device")

      @doc """
      Returns `{:ok, address}` of the first element in the device's memory, for other CUDA libraries.

      The address is valid as long as a handle of the buffer is alive. The caller must call `synchronize/1`
      between work of this library and work of the other one.

      Errors: `:unsupported` on devices that have no such addresses, `:not_allocated` for a buffer that has no memory: a lazy one, or one without elements.

          iex> case ExCubecl.Buffer.pointer(ExCubecl.Buffer.zeros!([1], :f32)) do
          ...>   {:ok, address} -> is_integer(address)
          ...>   {:error, error} -> error.reason == :unsupported
          ...> end
          true
      """
      @spec pointer(t) :: result(pos_integer)
      def pointer(buffer), do: route(buffer, &Info.pointer/1)
    end
  end
end
