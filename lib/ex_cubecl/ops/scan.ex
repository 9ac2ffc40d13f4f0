defmodule ExCubecl.Ops.Scan do
  @moduledoc false
  # Cumulative sums, products, minima and maxima: within chunks, then over the last result of each chunk (recursively), which is then
  # combined with the chunks behind it.

  alias ExCubecl.{Buffer, Device, Kernel, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Kernels, Layout, Operands, Shapes, Target, Temporary}
  alias ExCubecl.View.{Copy, Strides}

  @chunk 64

  # On a CPU, so many elements are accumulated one after the other in less time than launches take for chunks.
  @most_on_cpu 1024

  @doc "`which` is `:sum`, `:product`, `:min` or `:max`."
  def run(which, x, opts, into \\ nil) do
    name = :"cumulative_#{which}"

    with {:ok, view} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :reverse]),
         {:ok, axis} <- Shapes.axis(name, view.shape, Keyword.get(opts, :axis, -1)),
         {:ok, axes} <- reversed(name, axis, Keyword.get(opts, :reverse, false)),
         {:ok, wide} <- input(name, Strides.reverse(view, axes)),
         {outer, n, inner} = Layout.around(view.shape, axis),
         {:ok, out} <- target(into, view, axes, wide.dtype, [outer, n, inner]),
         {:ok, scanned} <- scanned(which, wide, {outer, n, inner}, out),
         :ok <- Temporary.free([wide], [view.buffer, scanned]),
         {:ok, result} <- Buffer.reshape(scanned, view.shape),
         do: output(name, result, axes, view.dtype)
  end

  defp reversed(_name, _axis, false), do: {:ok, []}
  defp reversed(_name, axis, true), do: {:ok, [axis]}
  defp reversed(name, _axis, other), do: Shapes.invalid(name, :reverse, other, "true or false")

  # 16-bit floats are accumulated as 32-bit floats.
  defp input(name, %{dtype: dtype} = view) when dtype in [:f16, :bf16],
    do: Copy.copy(view, name, :f32)

  defp input(name, view), do: Copy.contiguous(view, name)

  # What is reversed or converted in the end is not accumulated in the buffer of the option.
  defp target(into, %{shape: shape, dtype: dtype, device: device}, [], dtype, as),
    do: Target.new(into, shape, dtype, device, as)

  defp target(_into, %{device: device}, _axes, dtype, as),
    do: Buffer.empty(as, dtype, device: device)

  defp output(_name, %{dtype: dtype} = result, [], dtype), do: {:ok, result}

  defp output(name, result, axes, dtype),
    do: result |> View.new() |> Strides.reverse(axes) |> Copy.copy(name, dtype)

  # There is nothing to accumulate.
  defp scanned(_which, buffer, {outer, n, inner}, _out) when 0 in [outer, n, inner],
    do: {:ok, buffer}

  defp scanned(which, buffer, {outer, n, inner}, out) do
    chunk = if n <= @most_on_cpu and Device.cpu?(buffer.device), do: n, else: @chunk
    chunks = div(n + chunk - 1, chunk)
    args = [n, inner, chunk, chunks]

    within =
      Target.filled(out, fn out ->
        kernel = {Kernels, :"running_#{which}"}
        Kernel.run(kernel, [buffer | args] ++ [out], size: outer * chunks * inner)
      end)

    with {:ok, result} when chunks > 1 <- within,
         {:ok, last} <- beside(buffer, [outer, chunks, inner]),
         {:ok, last} <-
           Target.filled(last, fn out ->
             Kernel.run({Kernels, :last_of_chunks}, [result | args] ++ [out])
           end),
         {:ok, before} <- beside(buffer, [outer, chunks, inner]),
         {:ok, before} <- scanned(which, last, {outer, chunks, inner}, before),
         :ok <- Kernel.run({Kernels, :"combine_#{which}"}, [before | args] ++ [result]),
         :ok <- Temporary.free([last, before], [result]),
         do: {:ok, result}
  end

  defp beside(%{dtype: dtype, device: device}, shape),
    do: Buffer.empty(shape, dtype, device: device)
end
