defmodule ExCubecl.LinAlg.Host.SVD do
  @moduledoc false
  # The singular value decomposition of a matrix with at least as many rows as columns: A = Q R by reflections, then the rows of R are rotated by the one-sided Jacobi
  # method until they are orthogonal. Their lengths are the singular values, also the small ones to nearly all bits.

  alias ExCubecl.LinAlg.Host.{QR, Rows}

  # Sweeps; random matrices of 100 rows take six.
  @most 40

  # Squares of lengths below this one count as zero: the greatest length is about 1.
  @least 1.0e-280

  @epsilon 2.220446049250313e-16

  @doc """
  `{u, values, v}` of m rows of n elements: the first k columns of U, the values in descending order, and the rows of V'. Throws `:no_convergence`.
  """
  def decompose(rows, {m, n}, k) do
    scale = scale(rows)
    scaled = for row <- rows, do: Enum.map(row, &(&1 / scale))
    {q, r} = QR.factor(scaled, {m, n}, k)
    limit = @epsilon * max(4.0, :math.sqrt(n))

    turned =
      r
      |> Enum.take(n)
      |> Enum.zip(Rows.identity(n))
      |> Enum.map(fn {row, unit} -> {Rows.dot(row, row), row, unit} end)
      |> sweeps(limit, @most)

    {_, last} = Enum.split(Rows.transpose(q, k), n)
    values = for {square, _, _} <- turned, do: scale * :math.sqrt(square)
    {columns(q, turned) ++ last, values, vectors(turned, n)}
  end

  # A power of two, by which squares neither overflow nor vanish.
  defp scale(rows) do
    greatest = for row <- rows, x <- row, reduce: 0.0, do: (most -> max(abs(x), most))

    if greatest == 0,
      do: 1.0,
      else: :math.pow(2.0, greatest |> :math.log2() |> ceil() |> max(-1000) |> min(1000))
  end

  ## Sweeps over `{square of the length, row, row of the product of rotations}`

  defp sweeps(_rows, _limit, 0), do: throw(:no_convergence)

  defp sweeps(rows, limit, tries) do
    sorted = Enum.sort_by(rows, &elem(&1, 0), :desc)

    case sweep(sorted, limit, false) do
      {rows, false} -> rows
      {rows, true} -> sweeps(rows, limit, tries - 1)
    end
  end

  defp sweep([], _limit, turned?), do: {[], turned?}

  defp sweep([one | others], limit, turned?) do
    {others, {one, turned?}} =
      Enum.map_reduce(others, {one, turned?}, fn other, {one, turned?} ->
        case pair(one, other, limit) do
          {one, other} -> {other, {one, true}}
          :orthogonal -> {other, {one, turned?}}
        end
      end)

    {rest, turned?} = sweep(others, limit, turned?)
    {[one | rest], turned?}
  end

  defp pair({a, _, _}, {b, _, _}, _limit) when a < @least or b < @least, do: :orthogonal

  defp pair({a, x, u}, {b, y, v}, limit) do
    product = Rows.dot(x, y)

    if abs(product) <= limit * :math.sqrt(a) * :math.sqrt(b) do
      :orthogonal
    else
      tangent = tangent((b - a) / (2 * product))
      cosine = 1 / :math.sqrt(1 + tangent * tangent)
      {x, y} = turn(x, y, tangent * cosine, cosine)
      {u, v} = turn(u, v, tangent * cosine, cosine)
      {{Rows.dot(x, x), x, u}, {Rows.dot(y, y), y, v}}
    end
  end

  defp tangent(ratio) when abs(ratio) > 1.0e100, do: 0.5 / ratio

  defp tangent(ratio) do
    tangent = 1 / (abs(ratio) + :math.sqrt(1 + ratio * ratio))
    if ratio < 0, do: -tangent, else: tangent
  end

  defp turn(x, y, sine, cosine) do
    {Enum.zip_with(x, y, &(cosine * &1 - sine * &2)),
     Enum.zip_with(x, y, &(sine * &1 + cosine * &2))}
  end

  ## Results

  defp columns(q, turned) do
    for {_, _, unit} <- turned, do: Enum.map(q, &Rows.dot(unit, &1))
  end

  # Rows that count as zero have no direction: theirs are what the others leave.
  defp vectors(turned, n) do
    rows = for {square, row, _} <- turned, square >= @least, do: divided(row, :math.sqrt(square))
    rank = length(rows)

    if rank == n do
      rows
    else
      {q, _} = rows |> Rows.transpose(n) |> QR.factor({n, rank}, n)
      rows ++ Enum.drop(Rows.transpose(q, n), rank)
    end
  end

  defp divided(row, length), do: Enum.map(row, &(&1 / length))
end
