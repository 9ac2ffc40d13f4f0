defmodule ExCubecl.Ops.Gathering do
  @moduledoc false
  # Operations that read elements at the indices in a buffer.

  alias ExCubecl.{Buffer, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Indices, Layout, Operands, Selection, Shapes}

  def gather(buffer, indices, opts, into \\ nil) do
    with {:ok, buffer, indices, axis} <- checked(:gather, buffer, indices, opts),
         {:ok, indices} <- Buffer.reshape(indices, [Enum.product(indices.shape)]),
         do: along(:gather, buffer, indices, axis, into)
  end

  def take(buffer, indices, opts, into \\ nil) do
    with {:ok, buffer, indices, axis} <- checked(:take, buffer, indices, opts),
         do: along(:take, buffer, indices, axis, into)
  end

  # The axes of the indices replace the axis.
  defp along(name, buffer, indices, axis, into) do
    {before, [n | behind]} = Enum.split(buffer.shape, axis)
    {outer, [stride | inner]} = Enum.split(buffer.strides, axis)
    [addressed, trailing] = for list <- [indices.shape, behind], do: zeros(list)
    shape = before ++ indices.shape ++ behind

    source = %{buffer | shape: shape, strides: outer ++ addressed ++ inner}
    at = %{View.new(indices) | shape: indices.shape ++ ones(behind)}
    at = %{at | strides: Layout.strides(indices.shape) ++ trailing}
    select(name, shape, source, [{at, n, stride}], into)
  end

  def take_along_axis(buffer, indices, opts, into \\ nil) do
    name = :take_along_axis

    with {:ok, buffer, indices, axis} <- checked(name, buffer, indices, opts) do
      [a, b] = for %{shape: shape} <- [buffer, indices], do: List.delete_at(shape, axis)

      if length(buffer.shape) == length(indices.shape) and a == b do
        {n, stride} = {Enum.at(buffer.shape, axis), Enum.at(buffer.strides, axis)}
        strides = List.replace_at(buffer.strides, axis, 0)
        source = %{buffer | shape: indices.shape, strides: strides}
        select(name, indices.shape, source, [{View.new(indices), n, stride}], into)
      else
        Shapes.mismatch(name, :along, buffer.shape, indices.shape, %{along: axis})
      end
    end
  end

  def gather_nd(buffer, indices, opts, into \\ nil) do
    name = :gather_nd

    with {:ok, opts} <- Arguments.options(opts, [:axes, :check]),
         {:ok, buffer} <- Operands.view(buffer),
         {:ok, indices} <- Indices.integers(name, indices),
         {:ok, axes} <- Indices.axes(name, buffer.shape, indices.shape, opts[:axes]),
         lengths = Enum.map(axes, &Enum.at(buffer.shape, &1)),
         :ok <- Indices.check(name, indices, axes, lengths, opts[:check]) do
      {batch, _} = Enum.split(indices.shape, -1)
      rest = Enum.to_list(0..(length(buffer.shape) - 1)//1) -- axes
      trailing = Enum.map(rest, &Enum.at(buffer.shape, &1))
      shape = batch ++ trailing

      kept = zeros(batch) ++ Enum.map(rest, &Enum.at(buffer.strides, &1))
      source = %{buffer | shape: shape, strides: kept}
      along_batch = indices.shape |> Layout.strides() |> Enum.drop(-1)
      at = %{View.new(indices) | shape: batch ++ ones(rest), strides: along_batch ++ zeros(rest)}

      parts =
        for {axis, n} <- Enum.with_index(axes),
            do: {%{at | offset: n}, Enum.at(buffer.shape, axis), Enum.at(buffer.strides, axis)}

      select(name, shape, source, parts, into)
    end
  end

  defp select(name, shape, source, indices, into) do
    with {:ok, _, _} <- Arguments.shape(shape, source.dtype),
         do: Selection.run(name, shape, source, indices, 0, into)
  end

  defp zeros(list), do: Enum.map(list, fn _ -> 0 end)
  defp ones(list), do: Enum.map(list, fn _ -> 1 end)

  defp checked(name, buffer, indices, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :check]),
         {:ok, buffer} <- Operands.view(buffer),
         {:ok, indices} <- Indices.integers(name, indices),
         {:ok, axis} <- Shapes.axis(name, buffer.shape, Keyword.get(opts, :axis, 0)),
         length = Enum.at(buffer.shape, axis),
         :ok <- Indices.check(name, indices, [axis], [length], opts[:check]),
         do: {:ok, buffer, indices, axis}
  end
end
