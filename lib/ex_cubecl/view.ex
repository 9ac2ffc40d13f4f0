defmodule ExCubecl.View do
  @moduledoc """
  Strided views of buffers: broadcast, transposed, sliced and reversed elements without a copy.

  A view is a buffer, an offset, a shape and the stride of each axis, all in elements. No function of this module but `to_buffer/1` calls the device or
  allocates memory, so that views cost nothing; they share the storage of the buffer, and later writes to the buffer are
  visible. Every function of `ExCubecl.Ops` takes a view wherever it takes a buffer. Element-wise operations, reductions and movements read
  through the strides; the others make a contiguous copy first.

      iex> alias ExCubecl.{Ops, View}
      iex> x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], :s32)
      iex> columns = View.transpose!(x)
      iex> ExCubecl.to_list!(Ops.add!(columns, 10))
      [[11, 14], [12, 15], [13, 16]]
      iex> View.of!(x) |> View.slice!([0, 0], [2, 3], strides: [1, 2]) |> Ops.sum!(axis: 0) |> ExCubecl.to_list!()
      [5, 9]

  The functions of `ExCubecl.Buffer` and `ExCubecl.Kernel` take buffers only; those of `ExCubecl` that read elements take views too:

      iex> ExCubecl.to_list!(ExCubecl.View.reverse!(ExCubecl.buffer!([1, 2, 3], [3], :u8)))
      [3, 2, 1]

  Each function takes a buffer or a view, which must be of this node.

  Errors: `:invalid_argument` for an axis that does not exist, `:invalid_shape`, `:shape_mismatch` and `:out_of_bounds`.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Device, DType, Error, Shape}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.{Arguments, Operation, Text}
  alias ExCubecl.Ops.{Layout, Shapes, Slices}
  alias ExCubecl.View.{Check, Copy, Strides}

  @enforce_keys [:buffer, :offset, :shape, :strides, :dtype, :device]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          buffer: Buffer.t(),
          offset: non_neg_integer,
          shape: [non_neg_integer],
          strides: [integer],
          dtype: DType.t(),
          device: Device.id()
        }
  @type operand :: Buffer.t() | t
  @type result(value) :: {:ok, value} | {:error, Error.t()}

  @doc """
  Returns `{:ok, view}` of all elements of a buffer. A view is returned as it is.

      iex> ExCubecl.View.of!(ExCubecl.Buffer.iota!([2, 3], :f32)).strides
      [3, 1]
  """
  @spec of(operand) :: result(t)
  def of(%__MODULE__{} = x), do: Check.check(x)
  def of(x), do: with({:ok, buffer} <- Handle.local(x), do: {:ok, new(buffer)})

  @doc """
  Returns `{:ok, view}` with the elements repeated along axes of length 1, and along new leading axes.

      iex> row = ExCubecl.buffer!([1, 2], [2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.View.broadcast!(row, [3, 2]))
      [[1, 2], [1, 2], [1, 2]]
  """
  @spec broadcast(operand, Buffer.shape()) :: result(t)
  def broadcast(x, shape) do
    with {:ok, view} <- of(x),
         {:ok, shape, _} <- Arguments.shape(shape, view.dtype),
         :ok <- Shapes.broadcast_to(:broadcast, view.shape, shape),
         do: {:ok, Strides.broadcast(view, shape)}
  end

  @doc """
  Returns `{:ok, view}` with the axes in the order of `axes:`, by default reversed.

      iex> ExCubecl.to_list!(ExCubecl.View.transpose!(ExCubecl.Buffer.iota!([2, 2], :s32)))
      [[0, 2], [1, 3]]
  """
  @spec transpose(operand, axes: [non_neg_integer]) :: result(t)
  def transpose(x, opts \\ []) do
    with {:ok, view} <- of(x),
         {:ok, opts} <- Arguments.options(opts, [:axes]),
         {:ok, axes} <- Shapes.permutation(:transpose, view.shape, opts[:axes]),
         do: {:ok, Strides.transpose(view, axes)}
  end

  @doc """
  Returns `{:ok, view}` with a part of each axis: `lengths` elements from `starts` on, of which `strides:` keeps each n-th.

      iex> ExCubecl.to_list!(ExCubecl.View.slice!(ExCubecl.Buffer.iota!([7], :s32), [1], [5], strides: [2]))
      [1, 3, 5]
  """
  @spec slice(operand, [non_neg_integer], [non_neg_integer], strides: [pos_integer]) :: result(t)
  def slice(x, starts, lengths, opts \\ []) do
    with {:ok, view} <- of(x),
         {:ok, opts} <- Arguments.options(opts, [:strides]),
         {:ok, starts, counts, steps} <-
           Slices.checked(:slice, view.shape, starts, lengths, opts[:strides]),
         do: {:ok, Strides.slice(view, starts, counts, steps)}
  end

  @doc """
  Returns `{:ok, view}` with the order reversed along `axis:` or `axes:`, by default along all axes.

      iex> ExCubecl.to_list!(ExCubecl.View.reverse!(ExCubecl.Buffer.iota!([2, 2], :s32), axis: 1))
      [[1, 0], [3, 2]]
  """
  @spec reverse(operand, axis: integer, axes: [integer]) :: result(t)
  def reverse(x, opts \\ []) do
    with {:ok, view} <- of(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :axes]),
         {:ok, axes} <- Shapes.axes_of(:reverse, view.shape, opts),
         do: {:ok, Strides.reverse(view, axes)}
  end

  @doc """
  Returns `{:ok, view}` of the same elements, in row-major order, in another shape, of which one dimension may be -1 as for
  `ExCubecl.Buffer.reshape/2`. Strides cannot express every shape of a view that is not contiguous: the
  error is then `:invalid_argument`, and `to_buffer/1` makes a copy that can be reshaped.

      iex> ExCubecl.View.reshape!(ExCubecl.Buffer.iota!([2, 3], :s32), [6]).strides
      [1]
      iex> {:error, error} = ExCubecl.View.reshape(ExCubecl.View.transpose!(ExCubecl.Buffer.iota!([2, 3], :s32)), [6])
      iex> Exception.message(error)
      "reshape: invalid shape [6]: expected one that strides can express for shape [3, 2] with strides [1, 3], or ExCubecl.View.to_buffer/1 first"
  """
  @spec reshape(operand, [integer] | tuple) :: result(t)
  def reshape(x, shape) do
    with {:ok, view} <- of(x),
         {:ok, shape, _count} <- Arguments.reshaped(shape, view) do
      with :copy <- Strides.reshape(view, shape) do
        [from, strides] = for list <- [view.shape, view.strides], do: Text.show(list)
        why = "one that strides can express for shape #{from} with strides #{strides}"

        Shapes.invalid(:reshape, :shape, shape, why <> ", or ExCubecl.View.to_buffer/1 first")
      end
    end
  end

  @doc """
  Returns `{:ok, view}` without the axes `axis:` or `axes:`, which have the length 1; by default without all axes of length 1.

      iex> ExCubecl.View.squeeze!(ExCubecl.Buffer.iota!([1, 3, 1], :s32)).shape
      [3]
      iex> ExCubecl.View.squeeze!(ExCubecl.Buffer.iota!([1, 3, 1], :s32), axis: -1).shape
      [1, 3]
  """
  @spec squeeze(operand, axis: integer, axes: [integer]) :: result(t)
  def squeeze(x, opts \\ []) do
    with {:ok, view} <- of(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :axes]),
         {:ok, axes} <- Shapes.axes_of(:squeeze, view.shape, opts) do
      all? = opts[:axis] == nil and opts[:axes] == nil
      {ones, others} = Enum.split_with(axes, &(Enum.at(view.shape, &1) == 1))

      if all? or others == [],
        do: {:ok, Strides.squeeze(view, ones)},
        else:
          Shapes.invalid(
            :squeeze,
            :axis,
            hd(others),
            "an axis of length 1 of shape #{Text.show(view.shape)}"
          )
    end
  end

  @doc """
  Returns `{:ok, view}` with an axis of length 1 before the axis `axis`; -1 is behind the last axis.

      iex> x = ExCubecl.Buffer.iota!([3], :s32)
      iex> {ExCubecl.View.new_axis!(x, 0).shape, ExCubecl.View.new_axis!(x, -1).shape}
      {[1, 3], [3, 1]}
  """
  @spec new_axis(operand, integer) :: result(t)
  def new_axis(x, axis) do
    with {:ok, view} <- of(x),
         {:ok, axis} <- Shapes.axis(:new_axis, [1 | view.shape], axis),
         {:ok, _, _} <- Arguments.shape([1 | view.shape], view.dtype),
         do: {:ok, Strides.new_axis(view, axis)}
  end

  @doc """
  Returns `{:ok, buffer}` with the elements in row-major order: a new buffer, or if they are contiguous in memory, a buffer that shares it.

      iex> x = ExCubecl.Buffer.iota!([2, 2], :s32)
      iex> copy = ExCubecl.View.to_buffer!(ExCubecl.View.transpose!(x))
      iex> {ExCubecl.to_list!(copy), ExCubecl.Buffer.same_storage?(copy, x)}
      {[[0, 2], [1, 3]], false}
      iex> row = ExCubecl.View.to_buffer!(ExCubecl.View.slice!(x, [1, 0], [1, 2]))
      iex> {ExCubecl.to_list!(row), ExCubecl.Buffer.same_storage?(row, x)}
      {[[2, 3]], true}
  """
  @spec to_buffer(operand) :: result(Buffer.t())
  def to_buffer(x), do: with({:ok, view} <- of(x), do: Copy.contiguous(view, :to_buffer))

  @doc """
  Returns whether the elements are contiguous in memory, in row-major order.

      iex> x = ExCubecl.Buffer.iota!([2, 3], :s32)
      iex> {ExCubecl.View.contiguous?(x), ExCubecl.View.contiguous?(ExCubecl.View.transpose!(x))}
      {true, false}
  """
  @spec contiguous?(operand) :: boolean
  def contiguous?(x),
    do: x |> of() |> Operation.unwrap!(:contiguous?, x: x) |> Strides.contiguous?()

  @doc """
  Returns `{:ok, shape}`, a list of dimensions.

      iex> ExCubecl.View.shape(ExCubecl.View.transpose!(ExCubecl.Buffer.iota!([2, 3], :s32)))
      {:ok, [3, 2]}
  """
  @spec shape(operand) :: result([non_neg_integer])
  def shape(x), do: with({:ok, view} <- of(x), do: {:ok, view.shape})

  @doc """
  Returns `{:ok, dtype}` as a string.

      iex> ExCubecl.View.dtype(ExCubecl.View.of!(ExCubecl.Buffer.iota!([2], :s32)))
      {:ok, "s32"}
  """
  @spec dtype(operand) :: result(String.t())
  def dtype(x), do: with({:ok, view} <- of(x), do: {:ok, Atom.to_string(view.dtype)})

  @doc """
  Returns `{:ok, bytes}` of the elements, as many as `to_buffer/1` would have.

      iex> ExCubecl.View.size(ExCubecl.View.broadcast!(ExCubecl.Buffer.iota!([2], :s32), [100, 2]))
      {:ok, 800}
  """
  @spec size(operand) :: result(non_neg_integer)
  def size(x),
    do: with({:ok, view} <- of(x), do: {:ok, Shape.size(view.shape) * DType.size!(view.dtype)})

  ## For the other modules of the library

  @doc false
  # The view of a buffer of this node, unchecked.
  def new(%{shape: shape} = buffer) do
    %__MODULE__{
      buffer: buffer,
      offset: 0,
      shape: shape,
      strides: Layout.strides(shape),
      dtype: buffer.dtype,
      device: buffer.device
    }
  end
end
