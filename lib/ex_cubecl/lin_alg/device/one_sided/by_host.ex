defmodule ExCubecl.LinAlg.Device.OneSided.ByHost do
  @moduledoc false
  # What comes before and after the rotations of few matrices, by the host: the kernels that do it take longer to compile. A matrix is `{scale, rows}` after them, with
  # `{length, column, rotations}` for each column, in descending order of the lengths; the latter two are bytes.

  alias ExCubecl.{Buffer, DType}
  alias ExCubecl.LinAlg.Device.{Jacobi, Triangles}
  alias ExCubecl.LinAlg.Host
  alias ExCubecl.LinAlg.Host.Rows

  @doc "`{:ok, matrices}`, of [batch, rows, columns], after `sweeps`; with `vectors` elements of the product of rotations in each row."
  def rotated(a, %{shape: [count, _, _], dtype: dtype, device: device} = buffer, vectors, sweeps) do
    {m, n} = size(a)
    columns = n + rem(n, 2)

    with {:ok, matrices} <- Host.matrices(%{a | buffer: buffer, batch: [count]}),
         scales = Enum.map(matrices, &Jacobi.scale_of_rows/1),
         bytes =
           for(
             {rows, scale} <- Enum.zip(matrices, scales),
             do: bytes(rows, a, scale, vectors, dtype)
           ),
         {:ok, w} <-
           Buffer.new(IO.iodata_to_binary(bytes), [count, columns, m + vectors], dtype,
             device: device
           ),
         :ok <- sweeps.(w, m),
         {:ok, binary} <- Buffer.read(w),
         do: {:ok, Enum.zip(scales, sorted(binary, w, {m, n}))}
  end

  defp size(%{m: m, n: n}), do: {max(m, n), min(m, n)}

  # Columns in rows, each with its row of an identity matrix, and a row of zeros if their number is odd.
  defp bytes(rows, a, scale, vectors, dtype) do
    {m, n} = size(a)
    bits = 8 * DType.size!(dtype)
    factor = 1 / scale
    columns = if a.m >= a.n, do: Rows.transpose(rows, n), else: rows

    lines =
      for {column, at} <- Enum.with_index(columns) do
        line = for x <- column, into: <<>>, do: <<x * factor::float-size(bits)-native>>
        [line, if(vectors > 0, do: Triangles.unit(n, at, dtype), else: [])]
      end

    [lines, <<0::size((m + vectors) * rem(n, 2) * bits)>>]
  end

  defp sorted(binary, %{shape: [count, columns, length], dtype: dtype}, {m, n}) do
    size = DType.size!(dtype)

    for at <- 0..(count - 1)//1 do
      for c <- 0..(n - 1)//1 do
        row = binary_part(binary, (at * columns + c) * length * size, length * size)
        <<column::binary-size(m * size), rotations::binary>> = row
        {norm(column, 8 * size), column, rotations}
      end
      |> Enum.sort_by(&elem(&1, 0), :desc)
    end
  end

  defp norm(column, bits),
    do:
      :math.sqrt(
        for(<<x::float-size(bits)-native <- column>>, reduce: 0.0, do: (sum -> sum + x * x))
      )

  @doc "The singular values, of [batch, columns]."
  def values(matrices, %{shape: [count, rows, columns], dtype: dtype, device: device}) do
    values =
      for {scale, rows} <- matrices, {length, _, _} <- rows, do: Jacobi.product(length, scale)

    Buffer.new(values, [count, min(rows, columns)], dtype, device: device)
  end

  @doc "The products of rotations, of [batch, columns, columns]."
  def right(matrices, %{shape: [count, rows, columns], dtype: dtype, device: device}) do
    n = min(rows, columns)
    bytes = for {_, rows} <- matrices, {_, _, rotations} <- rows, do: rotations
    Buffer.new(IO.iodata_to_binary(bytes), [count, n, n], dtype, device: device)
  end

  @doc "`{:ok, rows, ranks}` for `ExCubecl.LinAlg.Device.Completion.completed/2`: the columns that are longer than `shortest`, divided by their lengths."
  def left(matrices, %{shape: [batch, m, n], dtype: dtype, device: device}, count, shortest) do
    bits = 8 * DType.size!(dtype)

    {bytes, ranks} =
      Enum.unzip(
        for {_, rows} <- matrices do
          known = Enum.take_while(rows, fn {length, _, _} -> length > shortest end)
          rank = length(known)

          divided =
            for {length, column, _} <- known,
                <<x::float-size(bits)-native <- column>>,
                into: <<>>,
                do: <<x / length::float-size(bits)-native>>

          units = for at <- rank..(count - 1)//1, do: Triangles.unit(max(m, n), at, dtype)
          {[divided, units], rank}
        end
      )

    with {:ok, left} <-
           Buffer.new(IO.iodata_to_binary(bytes), [batch, count, max(m, n)], dtype, device: device),
         do: {:ok, left, ranks}
  end
end
