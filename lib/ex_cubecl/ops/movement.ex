defmodule ExCubecl.Ops.Movement do
  @moduledoc false
  # Operations that move elements: each is a copy of a view into a new buffer, or of buffers into views of a new buffer.

  alias ExCubecl.{Buffer, Device, Error, Shape}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.{Arguments, Text}
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{Kernels, Layout, Lowering, Shapes, Slices, View}

  def broadcast_to(buffer, shape) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, shape, _} <- Arguments.shape(shape, buffer.dtype),
         :ok <- Shapes.broadcast_to(:broadcast_to, buffer.shape, shape),
         do: buffer |> View.of() |> View.broadcast(shape) |> Lowering.copy(:broadcast_to)
  end

  def transpose(buffer, opts) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axes]) do
      all = Enum.to_list(0..(length(buffer.shape) - 1)//1)
      axes = opts[:axes] || Enum.reverse(all)

      if is_list(axes) and not List.improper?(axes) and Enum.sort(axes) == all,
        do: buffer |> View.of() |> View.transpose(axes) |> Lowering.copy(:transpose),
        else: Shapes.invalid(:transpose, :axes, axes, "each of #{Text.show(all)} once")
    end
  end

  def reverse(buffer, opts) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axis, :axes]),
         {:ok, axes} <- Shapes.axes_of(:reverse, buffer.shape, opts),
         do: buffer |> View.of() |> View.reverse(axes) |> Lowering.copy(:reverse)
  end

  def slice(buffer, starts, lengths, opts) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:strides]),
         {:ok, starts, lengths, steps} <-
           Slices.checked(:slice, buffer.shape, starts, lengths, opts[:strides]) do
      counts = for {length, step} <- Enum.zip(lengths, steps), do: div(length + step - 1, step)
      buffer |> View.of() |> View.slice(starts, counts, steps) |> Lowering.copy(:slice)
    end
  end

  def put_slice(buffer, starts, source) do
    with {:ok, [buffer, source]} <- Handle.local_all([buffer, source]),
         :ok <- Slices.ranks(:put_slice, buffer.shape, source.shape),
         {:ok, starts, lengths, steps} <-
           Slices.checked(:put_slice, buffer.shape, starts, source.shape, nil),
         dtype = Types.mix(buffer.dtype, source.dtype),
         {:ok, out} <- Buffer.empty(buffer.shape, dtype, device: buffer.device),
         :ok <- Lowering.place(buffer, View.of(out), :put_slice),
         target = View.slice(View.of(out), starts, lengths, steps),
         :ok <- Lowering.place(source, target, :put_slice),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  def pad(buffer, value, config) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, axes} <- Slices.padding(:pad, buffer.shape, config),
         shape = Enum.map(axes, & &1.length),
         {:ok, out} <- Buffer.full(shape, buffer.dtype, value, device: buffer.device) do
      [firsts, counts, starts, steps] =
        for key <- [:first, :count, :start, :step], do: Enum.map(axes, & &1[key])

      source = View.slice(View.of(buffer), firsts, counts, Enum.map(axes, fn _ -> 1 end))
      target = View.slice(View.of(out), starts, counts, steps)
      with :ok <- Lowering.place(source, target, :pad), do: {:ok, out}
    end
  end

  def tile(buffer, repetitions) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, counts, _} <- Arguments.shape(repetitions, :u8) do
      rank = max(length(counts), length(buffer.shape))
      counts = Layout.padded(counts, rank, 1)
      shape = Layout.padded(buffer.shape, rank, 1)
      pairs = Enum.zip(counts, shape)
      # Each axis gets an axis of repetitions before it.
      [ones, wide] =
        for f <- [fn {_, n} -> [1, n] end, &Tuple.to_list/1], do: Enum.flat_map(pairs, f)

      with {:ok, wide, _} <- Arguments.shape(wide, buffer.dtype),
           {:ok, view} <- View.reshape(View.of(buffer), ones),
           {:ok, copy} <- view |> View.broadcast(wide) |> Lowering.copy(:tile),
           do: Buffer.reshape(copy, for({count, n} <- pairs, do: count * n))
    end
  end

  ## Several buffers

  def concatenate(buffers, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, [first | _] = buffers} <- some(:concatenate, buffers),
         {:ok, axis} <- Shapes.axis(:concatenate, first.shape, Keyword.get(opts, :axis, 0)),
         :ok <- alike(buffers, axis),
         do: joined(:concatenate, buffers, axis)
  end

  def stack(buffers, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, [first | _] = buffers} <- some(:stack, buffers),
         # The new axis may be the last one.
         {:ok, axis} <- Shapes.axis(:stack, [1 | first.shape], Keyword.get(opts, :axis, 0)),
         :ok <- equal(buffers),
         {:ok, buffers} <-
           Error.map(buffers, &Buffer.reshape(&1, List.insert_at(&1.shape, axis, 1))),
         do: joined(:stack, buffers, axis)
  end

  defp joined(name, [first | _] = buffers, axis) do
    lengths = Enum.map(buffers, &Enum.at(&1.shape, axis))
    starts = Enum.scan([0 | lengths], &+/2)
    shape = List.replace_at(first.shape, axis, Enum.sum(lengths))
    steps = Enum.map(shape, fn _ -> 1 end)
    zeros = Enum.map(shape, fn _ -> 0 end)

    with {:ok, _, _} <- Arguments.shape(shape, first.dtype),
         {:ok, out} <- Buffer.empty(shape, first.dtype, device: first.device),
         {:ok, _} <-
           Error.map(Enum.zip(buffers, starts), fn {buffer, start} ->
             from = List.replace_at(zeros, axis, start)
             target = View.slice(View.of(out), from, buffer.shape, steps)
             with :ok <- Lowering.place(buffer, target, name), do: {:ok, nil}
           end),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  defp some(name, buffers) do
    case Handle.local_all(buffers) do
      {:ok, []} -> Shapes.invalid(name, :buffers, [], "at least one buffer")
      result -> result
    end
  end

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

  def split(buffer, parts, opts) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, axis} <- Shapes.axis(:split, buffer.shape, Keyword.get(opts, :axis, 0)),
         {:ok, lengths} <- Slices.parts(:split, Enum.at(buffer.shape, axis), parts) do
      zeros = Enum.map(buffer.shape, fn _ -> 0 end)
      steps = Enum.map(buffer.shape, fn _ -> 1 end)

      Error.map(Enum.zip(lengths, Enum.scan([0 | lengths], &+/2)), fn {length, start} ->
        starts = List.replace_at(zeros, axis, start)
        shape = List.replace_at(buffer.shape, axis, length)
        buffer |> View.of() |> View.slice(starts, shape, steps) |> Lowering.copy(:split)
      end)
    end
  end

  ## New buffers

  def eye(shape, dtype, opts) do
    shape = if is_integer(shape), do: [shape, shape], else: shape

    with {:ok, out} <- new(shape, dtype, opts, [:device]) do
      case out.shape do
        [_, n] -> filled(out, &Kernels.eye(max(n, 1), &1))
        _ -> Shapes.invalid(:eye, :shape, shape, "a number, or the lengths of two axes")
      end
    end
  end

  def iota(shape, dtype, opts) do
    with {:ok, out} <- new(shape, dtype, opts, [:device, :axis]),
         {:ok, {n, inner}} <- along(out.shape, opts[:axis]),
         do: filled(out, &Kernels.iota(max(n, 1), max(inner, 1), &1))
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

  defp filled(out, run),
    do: with(:ok <- run.(out), :ok <- Buffer.ensure_allocated(out), do: {:ok, out})
end
