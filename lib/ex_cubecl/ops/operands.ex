defmodule ExCubecl.Ops.Operands do
  @moduledoc false
  # The operands of operations: buffers, views and numbers, and how a kernel reads them (`ExCubecl.Ops.Reads`): an element-wise operation in the
  # order of its result, a reduction along kept and reduced axes.

  alias ExCubecl.{Buffer, Device, Error, Shape, View}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.Reads
  alias ExCubecl.View.{Copy, Strides}

  @doc "The operands, with a view in place of each buffer. Terms that are neither are left to the checks of a launch."
  def views(operands) do
    Error.map(operands, fn
      %struct{} = operand when struct in [View, Buffer] -> View.of(operand)
      other -> {:ok, other}
    end)
  end

  @doc "The view of an operand, which must be a buffer or a view."
  defdelegate view(operand), to: View, as: :of

  @doc "The views of a list of buffers and views."
  def view_all(operands), do: each(operands, &view/1)

  @doc """
  A buffer with the elements of a buffer or view in row-major order, for operations that need contiguous elements: it shares the memory if they
  are contiguous, else it is a copy. `name` is the operation that errors and telemetry show.
  """
  @spec contiguous(Buffer.t() | View.t(), atom) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def contiguous(%View{} = view, name),
    do: with({:ok, view} <- View.of(view), do: Copy.contiguous(view, name))

  def contiguous(buffer, _name), do: Handle.local(buffer)

  @doc "As `contiguous/2`, for a list of operands."
  @spec contiguous_all([Buffer.t() | View.t()], atom) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def contiguous_all(operands, name), do: each(operands, &contiguous(&1, name))

  defp each(operands, fun) do
    if is_list(operands) and not List.improper?(operands),
      do: Error.map(operands, fun),
      else: Arguments.invalid(:buffers, operands, "a list of buffers and views")
  end

  @doc "The shapes of the views."
  def shapes(operands), do: for(%View{shape: shape} <- operands, do: shape)

  @doc """
  The reads of operands by name, for a result of a shape; with `flat?` false, none is `:flat`. An operand `{:part, view}` is read through its strides, also where these
  lead out of its buffer.
  """
  @spec reads([atom], [term], [non_neg_integer], boolean) ::
          {:ok, [Reads.read()]} | {:error, Error.t()}
  def reads(names, operands, shape, flat? \\ true) do
    names |> Enum.zip(operands) |> Error.map(&read(&1, shape, flat?))
  end

  defp read({name, %View{} = view}, shape, flat?) do
    cond do
      flat? and view.shape == shape and Strides.contiguous?(view) -> in_buffer(name, :flat, view)
      Shape.size(view.shape) == 1 -> in_buffer(name, :one, view)
      true -> {:ok, {name, :strided, Strides.broadcast(view, shape)}}
    end
  end

  defp read({name, {:part, view}}, shape, _flat?),
    do: {:ok, {name, :strided, Strides.broadcast(view, shape)}}

  defp read({name, other}, _shape, _flat?), do: {:ok, {name, :number, other}}

  # A launch reads a whole buffer in another shape without a further handle, which would hold the memory until it is collected.
  defp in_buffer(name, mode, %View{buffer: buffer, offset: 0, shape: shape} = view) do
    if Shape.size(buffer.shape) == Shape.size(shape),
      do: {:ok, {name, mode, %{buffer | shape: shape}}},
      else: part_of_buffer(name, mode, view)
  end

  defp in_buffer(name, mode, view), do: part_of_buffer(name, mode, view)

  defp part_of_buffer(name, mode, view),
    do: with({:ok, buffer} <- Strides.buffer(view), do: {:ok, {name, mode, buffer}})

  defdelegate argument(read), to: Reads
  defdelegate strided(reads), to: Reads
  defdelegate expression(read, index), to: Reads
  defdelegate apply(op, expressions, as, dtype), to: Reads

  @doc """
  The types of a calculation with a result of type `dtype`: `:acc`, in which it is made, `:stored`, in which kernels store the result, and
  `:computed`, those of the device. 16-bit floats are calculated as 32-bit floats, and narrow integers, which wrap around, as 32-bit integers.
  """
  def types(dtype, device) do
    with {:ok, computed} <- Device.dtypes(device) do
      acc = wide(dtype)
      stored = if dtype in computed, do: dtype, else: acc
      {:ok, %{dtype: dtype, acc: acc, stored: stored, computed: computed}}
    end
  end

  defp wide(dtype) when dtype in [:f16, :bf16], do: :f32
  defp wide(dtype) when dtype in [:s8, :s16], do: :s32
  defp wide(dtype) when dtype in [:u8, :u16], do: :u32
  defp wide(dtype), do: dtype

  @doc "The types of a function of floats of an operand, whose integers are converted to `:f32`."
  def float_types(%{dtype: dtype, device: device}),
    do: types(if(dtype in [:f16, :bf16, :f32, :f64], do: dtype, else: :f32), device)

  @doc "The view, whose elements are converted to the type of the calculation if the device does not compute their type."
  def loaded(%View{buffer: buffer} = view, types) do
    if view.dtype in types.computed do
      {:ok, view}
    else
      with {:ok, buffer} <- Buffer.convert(buffer, types.acc),
           do: {:ok, %{view | buffer: buffer, dtype: types.acc}}
    end
  end

  @doc "The buffer in a type."
  def converted(%Buffer{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  def converted(buffer, dtype), do: Buffer.convert(buffer, dtype)
end
