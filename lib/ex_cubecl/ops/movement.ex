defmodule ExCubecl.Ops.Movement do
  @moduledoc false
  # Operations that move elements: each is a copy of a view into a new buffer, or of buffers into views of a new buffer.

  alias ExCubecl.{Buffer, Device, Error, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{Kernels, Layout, Lowering, Operands, Shapes, Slices, Target}
  alias ExCubecl.View.{Copy, Strides}

  def broadcast_to(x, shape, into \\ nil) do
    with {:ok, view} <- Operands.view(x),
         {:ok, shape, _} <- Arguments.shape(shape, view.dtype),
         :ok <- Shapes.broadcast_to(:broadcast_to, view.shape, shape),
         do: view |> Strides.broadcast(shape) |> Copy.moved(:broadcast_to, into)
  end

  def transpose(x, opts, into \\ nil),
    do: with({:ok, view} <- View.transpose(x, opts), do: Copy.moved(view, :transpose, into))

  def reverse(x, opts, into \\ nil),
    do: with({:ok, view} <- View.reverse(x, opts), do: Copy.moved(view, :reverse, into))

  def slice(x, starts, lengths, opts, into \\ nil),
    do:
      with(
        {:ok, view} <- View.slice(x, starts, lengths, opts),
        do: Copy.moved(view, :slice, into)
      )

  def put_slice(x, starts, source, into \\ nil) do
    with {:ok, [x, source]} <- Error.map([x, source], &Operands.view/1),
         :ok <- Slices.ranks(:put_slice, x.shape, source.shape),
         {:ok, starts, counts, steps} <-
           Slices.checked(:put_slice, x.shape, starts, source.shape, nil),
         dtype = Types.mix(x.dtype, source.dtype),
         {:ok, out} <- Target.new(into, x.shape, dtype, x.device),
         :ok <- Lowering.place(x, View.new(out), :put_slice),
         target = Strides.slice(View.new(out), starts, counts, steps),
         :ok <- Lowering.place(source, target, :put_slice),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  def pad(x, value, config, into \\ nil) do
    with {:ok, view} <- Operands.view(x),
         {:ok, axes} <- Slices.padding(:pad, view.shape, config),
         shape = Enum.map(axes, & &1.length),
         {:ok, out} <- full(shape, value, view, into) do
      [firsts, counts, starts, steps] =
        for key <- [:first, :count, :start, :step], do: Enum.map(axes, & &1[key])

      source = Strides.slice(view, firsts, counts, Enum.map(axes, fn _ -> 1 end))
      target = Strides.slice(View.new(out), starts, counts, steps)
      with :ok <- Lowering.place(source, target, :pad), do: {:ok, out}
    end
  end

  defp full(shape, value, %{dtype: dtype, device: device}, into) do
    if Target.fits?(into, shape, dtype, device),
      do: with(:ok <- Buffer.fill(into, value), do: {:ok, into}),
      else: Buffer.full(shape, dtype, value, device: device)
  end

  def tile(x, repetitions, into \\ nil) do
    with {:ok, view} <- Operands.view(x),
         {:ok, counts, _} <- Arguments.shape(repetitions, :u8) do
      rank = max(length(counts), length(view.shape))
      counts = Layout.padded(counts, rank, 1)
      shape = Layout.padded(view.shape, rank, 1)
      pairs = Enum.zip(counts, shape)
      # Each axis gets an axis of repetitions before it.
      [ones, wide] =
        for f <- [fn {_, n} -> [1, n] end, &Tuple.to_list/1], do: Enum.flat_map(pairs, f)

      # Axes of length 1 can always be inserted.
      with {:ok, wide, _} <- Arguments.shape(wide, view.dtype),
           {:ok, view} <- Strides.reshape(view, ones) do
        shape = for {count, n} <- pairs, do: count * n
        view |> Strides.broadcast(wide) |> Copy.moved(:tile, into, shape)
      end
    end
  end

  ## Several buffers

  def concatenate(buffers, opts, into \\ nil) do
    with {:ok, [first | _] = views} <- some(:concatenate, buffers),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, axis} <- Shapes.axis(:concatenate, first.shape, Keyword.get(opts, :axis, 0)),
         :ok <- alike(views, axis),
         do: joined(:concatenate, views, axis, into)
  end

  def stack(buffers, opts, into \\ nil) do
    with {:ok, [first | _] = views} <- some(:stack, buffers),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         # The new axis may be the last one.
         {:ok, axis} <- Shapes.axis(:stack, [1 | first.shape], Keyword.get(opts, :axis, 0)),
         :ok <- equal(views),
         {:ok, _, _} <- Arguments.shape([1 | first.shape], first.dtype),
         do: joined(:stack, Enum.map(views, &Strides.new_axis(&1, axis)), axis, into)
  end

  defp joined(name, [first | _] = views, axis, into) do
    lengths = Enum.map(views, &Enum.at(&1.shape, axis))
    starts = Enum.scan([0 | lengths], &+/2)
    shape = List.replace_at(first.shape, axis, Enum.sum(lengths))
    steps = Enum.map(shape, fn _ -> 1 end)
    zeros = Enum.map(shape, fn _ -> 0 end)

    # A new buffer is not returned before all of its elements are written.
    with {:ok, _, _} <- Arguments.shape(shape, first.dtype),
         {:ok, out} <- Target.new(into, shape, first.dtype, first.device),
         {:ok, _} <-
           Error.map(Enum.zip(views, starts), fn {view, start} ->
             from = List.replace_at(zeros, axis, start)
             target = Strides.slice(View.new(out), from, view.shape, steps)
             with :ok <- Lowering.place(view, target, name, out != into), do: {:ok, nil}
           end),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  defp some(name, []), do: Shapes.invalid(name, :buffers, [], "at least one buffer")
  defp some(_name, buffers), do: Operands.view_all(buffers)

  defp equal([first | rest]) do
    case Enum.find(rest, &(&1.shape != first.shape)) do
      nil -> one_type([first | rest])
      other -> Shapes.mismatch(:stack, :equal, first.shape, other.shape)
    end
  end

  defp alike([first | rest] = buffers, axis) do
    rest_of = &List.delete_at(&1.shape, axis)
    rank = length(first.shape)

    case Enum.find(rest, &(length(&1.shape) != rank or rest_of.(&1) != rest_of.(first))) do
      nil ->
        one_type(buffers)

      other ->
        more = beside(first.shape, other.shape, axis)
        Shapes.mismatch(:concatenate, :concatenate, first.shape, other.shape, more)
    end
  end

  defp one_type([first | rest]) do
    case Enum.find(rest, &(&1.dtype != first.dtype)) do
      nil -> :ok
      other -> Error.new(:type_mismatch, expected: first.dtype, actual: other.dtype)
    end
  end

  # The axis at which two shapes differ, other than the axis along which they are concatenated.
  defp beside(shape, other, _along) when length(shape) != length(other), do: %{axis: nil}

  defp beside(shape, other, along) do
    pairs = Enum.zip(shape, other)
    wrong? = fn {{a, b}, axis} -> axis != along and a != b end
    {lengths, axis} = pairs |> Enum.with_index() |> Enum.find(wrong?)
    %{along: along, axis: axis, lengths: lengths}
  end

  def split(x, parts, opts) do
    with {:ok, view} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, axis} <- Shapes.axis(:split, view.shape, Keyword.get(opts, :axis, 0)),
         {:ok, lengths} <- Slices.parts(:split, Enum.at(view.shape, axis), parts) do
      zeros = Enum.map(view.shape, fn _ -> 0 end)
      steps = Enum.map(view.shape, fn _ -> 1 end)

      Error.map(Enum.zip(lengths, Enum.scan([0 | lengths], &+/2)), fn {length, start} ->
        starts = List.replace_at(zeros, axis, start)
        shape = List.replace_at(view.shape, axis, length)
        view |> Strides.slice(starts, shape, steps) |> Copy.copy(:split)
      end)
    end
  end

  ## New buffers

  def eye(shape, dtype, opts) do
    shape = if is_integer(shape) and shape >= 0, do: [shape, shape], else: shape

    with {:ok, out} <- new(shape, dtype, opts, [:device]) do
      case out.shape do
        [_, n] -> Target.filled(out, &Kernels.eye(max(n, 1), &1))
        _ -> Shapes.invalid(:eye, :shape, shape, "a number, or the lengths of two axes")
      end
    end
  end

  def iota(shape, dtype, opts) do
    with {:ok, out} <- new(shape, dtype, opts, [:device, :axis]),
         {:ok, {n, inner}} <- along(out.shape, opts[:axis]),
         do: Target.filled(out, &Kernels.iota(max(n, 1), max(inner, 1), &1))
  end

  defp along(shape, nil), do: {:ok, {Shape.size(shape), 1}}

  defp along(shape, axis) do
    with {:ok, axis} <- Shapes.axis(:iota, shape, axis) do
      {_, n, inner} = Layout.around(shape, axis)
      {:ok, {n, inner}}
    end
  end

  defp new(shape, dtype, opts, known) do
    with {:ok, opts} <- Arguments.options(opts, known),
         {:ok, id} <- Device.resolve(opts[:device]),
         do: Buffer.empty(shape, dtype, device: id)
  end
end
