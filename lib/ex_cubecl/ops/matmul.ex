defmodule ExCubecl.Ops.Matmul do
  @moduledoc false
  # Products of matrices.

  alias ExCubecl.{Buffer, DType, Error, Kernel, Native}
  alias ExCubecl.Buffer.{AllocOptions, Pressure}
  alias ExCubecl.Ops.{Kernels, Operands, Shapes}

  def run(a, b) do
    with {:ok, [a, b]} <- Operands.contiguous_all([a, b], :matmul) do
      case {a.shape, b.shape} do
        {_, _} when a.dtype != b.dtype ->
          Error.new(:type_mismatch, expected: a.dtype, actual: b.dtype)

        {[m, k], [k, n]} ->
          with {:ok, wide} <- widened(a),
               {:ok, other} <- widened(b),
               {:ok, result} <- product(wide, other, {m, k, n}),
               do: narrowed(result, a.dtype)

        {shape, other} ->
          Shapes.mismatch(:matmul, :matmul, shape, other)
      end
    end
  end

  # Converts to the type of the result, which rounds once.
  defp narrowed(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  defp narrowed(buffer, dtype), do: Buffer.convert(buffer, dtype)

  # 16-bit floats are calculated as 32-bit floats.
  defp widened(%{dtype: dtype} = buffer) when dtype in [:f16, :bf16],
    do: Buffer.convert(buffer, :f32)

  defp widened(buffer), do: {:ok, buffer}

  # Uses the matrix multiplication of the device if it has one for these operands.
  defp product(a, b, {m, k, n} = lengths) do
    bytes = m * n * DType.size!(a.dtype)

    made =
      with {:ok, note} <- AllocOptions.from([]) do
        Pressure.create(a.device, bytes, fn ->
          Native.kernel_matmul(a.ref, b.ref, lengths, [m, n], note)
        end)
      end

    case made do
      {:ok, nil} ->
        size = [div(m + 3, 4), div(n + 3, 4)]

        with {:ok, out} <- Buffer.zeros([m, n], a.dtype, device: a.device),
             :ok <- add_products(a, b, {n, k}, 0, out, size),
             do: {:ok, out}

      {:ok, ref} ->
        {:ok, %Buffer{ref: ref, dtype: a.dtype, shape: [m, n], device: a.device}}

      error ->
        error
    end
  end

  # The number of products of one launch: a driver may stop a kernel whose loop runs too long.
  @products 8192

  defp add_products(_a, _b, {_n, k}, from, _out, _size) when from >= k, do: :ok

  defp add_products(a, b, {n, k} = lengths, from, out, size) do
    to = min(from + @products, k) - 1

    with :ok <- Kernel.run({Kernels, :matmul}, [a, b, n, k, from, to, out], size: size),
         do: add_products(a, b, lengths, to + 1, out, size)
  end
end
