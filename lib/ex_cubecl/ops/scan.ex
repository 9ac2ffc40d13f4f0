defmodule ExCubecl.Ops.Scan do
  @moduledoc false
  # Cumulative sums, products, minima and maxima: within chunks, then over the last result of each chunk (recursively), which is then
  # combined with the chunks behind it.

  alias ExCubecl.{Buffer, Kernel}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Kernels, Layout, Lowering, Shapes, View}

  @chunk 64

  @doc "`which` is `:sum`, `:product`, `:min` or `:max`."
  def run(which, buffer, opts) do
    name = :"cumulative_#{which}"

    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axis, :reverse]),
         {:ok, axis} <- Shapes.axis(name, buffer.shape, Keyword.get(opts, :axis, -1)),
         {:ok, axes} <- reversed(name, axis, Keyword.get(opts, :reverse, false)),
         {:ok, wide} <- input(name, buffer, axes),
         {outer, n, inner} = Layout.around(buffer.shape, axis),
         {:ok, result} <- scanned(which, wide, {outer, n, inner}),
         {:ok, result} <- Buffer.reshape(result, buffer.shape),
         do: output(name, result, axes, buffer.dtype)
  end

  defp reversed(_name, _axis, false), do: {:ok, []}
  defp reversed(_name, axis, true), do: {:ok, [axis]}
  defp reversed(name, _axis, other), do: Shapes.invalid(name, :reverse, other, "true or false")

  # 16-bit floats are accumulated as 32-bit floats.
  defp input(name, buffer, axes) do
    casts = if buffer.dtype in [:f16, :bf16], do: [dtype: :f32], else: []

    if casts == [] and axes == [],
      do: {:ok, buffer},
      else: buffer |> View.of() |> View.reverse(axes) |> Lowering.copy(name, casts)
  end

  defp output(_name, %{dtype: dtype} = result, [], dtype), do: {:ok, result}

  defp output(name, result, axes, dtype),
    do: result |> View.of() |> View.reverse(axes) |> Lowering.copy(name, dtype: dtype)

  # There is nothing to accumulate.
  defp scanned(_which, buffer, {outer, n, inner}) when 0 in [outer, n, inner], do: {:ok, buffer}

  defp scanned(which, buffer, {outer, n, inner}) do
    chunks = div(n + @chunk - 1, @chunk)
    args = [n, inner, @chunk, chunks]

    within =
      filled(buffer, [outer, n, inner], fn out ->
        kernel = {Kernels, :"running_#{which}"}
        Kernel.run(kernel, [buffer | args] ++ [out], size: outer * chunks * inner)
      end)

    with {:ok, result} when chunks > 1 <- within,
         {:ok, last} <-
           filled(buffer, [outer, chunks, inner], fn out ->
             Kernel.run({Kernels, :last_of_chunks}, [result | args] ++ [out])
           end),
         {:ok, before} <- scanned(which, last, {outer, chunks, inner}),
         :ok <- Kernel.run({Kernels, :"combine_#{which}"}, [before | args] ++ [result]),
         do: {:ok, result}
  end

  defp filled(beside, shape, run) do
    with {:ok, out} <- Buffer.empty(shape, beside.dtype, device: beside.device),
         :ok <- run.(out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end
end
