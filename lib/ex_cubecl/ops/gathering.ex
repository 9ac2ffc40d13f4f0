defmodule ExCubecl.Ops.Gathering do
  @moduledoc false
  # Operations that read elements at the indices in a buffer.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Kernels, Layout, Operands, Reductions, Shapes}

  def gather(buffer, indices, opts) do
    with {:ok, buffer, indices, axis} <- checked(:gather, buffer, indices, opts),
         do: slices(buffer, indices, axis, [Shape.size(indices.shape)])
  end

  def take(buffer, indices, opts) do
    with {:ok, buffer, indices, axis} <- checked(:take, buffer, indices, opts),
         do: slices(buffer, indices, axis, indices.shape)
  end

  # The axis is replaced by the axes `shape`.
  defp slices(buffer, indices, axis, shape) do
    {_, n, inner} = Layout.around(buffer.shape, axis)
    {before, [_ | behind]} = Enum.split(buffer.shape, axis)
    count = Shape.size(indices.shape)

    filled(buffer, before ++ shape ++ behind, fn out ->
      Kernels.gather(buffer, indices, n, max(inner, 1), max(count, 1), out)
    end)
  end

  def take_along_axis(buffer, indices, opts) do
    with {:ok, buffer, indices, axis} <- checked(:take_along_axis, buffer, indices, opts) do
      [a, b] = for %{shape: shape} <- [buffer, indices], do: List.delete_at(shape, axis)

      if length(buffer.shape) == length(indices.shape) and a == b do
        {_, n, inner} = Layout.around(buffer.shape, axis)
        m = Enum.at(indices.shape, axis)

        filled(buffer, indices.shape, fn out ->
          Kernels.take_along(buffer, indices, n, max(inner, 1), max(m, 1), out)
        end)
      else
        Shapes.mismatch(:take_along_axis, :along, buffer.shape, indices.shape, %{along: axis})
      end
    end
  end

  defp checked(name, buffer, indices, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :check]),
         {:ok, [buffer, indices]} <- Operands.contiguous_all([buffer, indices], name),
         {:ok, indices} <- integers(indices),
         {:ok, axis} <- Shapes.axis(name, buffer.shape, Keyword.get(opts, :axis, 0)),
         :ok <- in_bounds(name, indices, Enum.at(buffer.shape, axis), opts[:check]),
         do: {:ok, buffer, indices, axis}
  end

  defp integers(%{dtype: dtype}) when dtype in [:f16, :bf16, :f32, :f64],
    do: Error.new(:type_mismatch, argument: :indices, expected: :s32, actual: dtype)

  defp integers(indices), do: {:ok, indices}

  defp in_bounds(_name, _indices, _n, check) when check in [nil, false], do: :ok

  defp in_bounds(name, indices, n, true) do
    if Shape.size(indices.shape) == 0 do
      :ok
    else
      with {:ok, least} <- Reductions.run(:reduce_min, indices, []),
           {:ok, most} <- Reductions.run(:reduce_max, indices, []),
           {:ok, [least, most]} <- Error.map([least, most], &Buffer.item/1) do
        case Enum.find([least, most], &(&1 not in 0..(n - 1)//1)) do
          nil -> :ok
          index -> Error.new(:out_of_bounds, operation: name, index: index, size: n)
        end
      end
    end
  end

  defp in_bounds(name, _indices, _n, check),
    do: Shapes.invalid(name, :check, check, "true or false")

  defp filled(buffer, shape, run) do
    with {:ok, _, _} <- Arguments.shape(shape, buffer.dtype),
         {:ok, out} <- Buffer.empty(shape, buffer.dtype, device: buffer.device),
         :ok <- run.(out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end
end
