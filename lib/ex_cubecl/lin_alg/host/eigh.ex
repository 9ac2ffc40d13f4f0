defmodule ExCubecl.LinAlg.Host.Eigh do
  @moduledoc false
  # Eigenvalues and eigenvectors of a symmetric matrix, of which the lower triangle is read: reduction to a tridiagonal matrix by Householder
  # reflections, then the QL algorithm with implicit shifts.

  alias ExCubecl.LinAlg.Host.Rows

  @doc "`{values, vectors}`: the values in ascending order, and rows whose columns are the vectors. Throws `:no_convergence`."
  def decompose([]), do: {[], []}

  def decompose(rows) do
    n = length(rows)
    {diagonal, beside, columns} = rows |> Rows.symmetric() |> tridiagonal()

    {values, vectors} =
      ql(indexed(diagonal), indexed(beside ++ [0.0]), indexed(columns), 0, n)
      |> Enum.sort_by(&elem(&1, 0))
      |> Enum.unzip()

    {values, Rows.transpose(vectors, n)}
  end

  defp indexed(list), do: list |> Enum.with_index() |> Map.new(fn {x, i} -> {i, x} end)

  # The diagonal, what is beside it, and the columns of the orthogonal matrix.
  defp tridiagonal([[d]]), do: {[d], [], [[1.0]]}

  defp tridiagonal([[d | x] | rest]) do
    {v, tau, beta} = reflector = Rows.reflector(x)
    inner = rest |> Enum.map(&tl/1) |> both_sides(v, tau)
    {diagonal, beside, columns} = tridiagonal(inner)
    columns = for column <- columns, do: [0.0 | Rows.reflect(column, reflector)]
    {[d | diagonal], [beta | beside], [Rows.unit(length(x) + 1, 0) | columns]}
  end

  # H A H of a reflector H, as A - v w' - w v'.
  defp both_sides(rows, _v, tau) when tau == 0, do: rows

  defp both_sides(rows, v, tau) do
    p = Enum.map(rows, &(tau * Rows.dot(&1, v)))
    w = Rows.subtract(p, tau / 2 * Rows.dot(p, v), v)

    for {row, v_i, w_i} <- Enum.zip([rows, v, w]),
        do: row |> Rows.subtract(v_i, w) |> Rows.subtract(w_i, v)
  end

  ## QL: the elements of the diagonal, those beside it, and the vectors, by their indices

  @most 60

  defp ql(d, _e, z, n, n), do: for(i <- 0..(n - 1), do: {d[i], z[i]})

  defp ql(d, e, z, l, n) do
    {d, e, z} = converge(d, e, z, l, n, @most)
    ql(d, e, z, l + 1, n)
  end

  defp converge(_d, _e, _z, _l, _n, 0), do: throw(:no_convergence)

  defp converge(d, e, z, l, n, tries) do
    case Enum.find(l..(n - 2)//1, n - 1, &negligible?(d, e, &1)) do
      ^l ->
        {d, e, z}

      m ->
        g = (d[l + 1] - d[l]) / (2 * e[l])
        r = hypot(g, 1.0)
        g = d[m] - d[l] + e[l] / if(g < 0, do: g - r, else: g + r)
        {d, e, z} = sweep(m - 1, l, m, {g, 1.0, 1.0, 0.0}, {d, e, z})
        converge(d, e, z, l, n, tries - 1)
    end
  end

  defp negligible?(d, e, m) do
    scale = abs(d[m]) + abs(d[m + 1])
    abs(e[m]) + scale == scale
  end

  defp sweep(i, l, m, {g, _s, _c, p}, {d, e, z}) when i < l,
    do: {Map.update!(d, l, &(&1 - p)), e |> Map.put(l, g) |> Map.put(m, 0.0), z}

  defp sweep(i, l, m, {g, s, c, p}, {d, e, z}) do
    {f, b} = {s * e[i], c * e[i]}
    r = hypot(f, g)
    e = Map.put(e, i + 1, r)

    if r == 0 do
      {Map.update!(d, i + 1, &(&1 - p)), Map.put(e, m, 0.0), z}
    else
      {s, c} = {f / r, g / r}
      g = d[i + 1] - p
      r = (d[i] - g) * s + 2 * c * b
      p = s * r
      d = Map.put(d, i + 1, g + p)
      {low, high} = rotate(z[i], z[i + 1], s, c, [], [])
      sweep(i - 1, l, m, {c * r - b, s, c, p}, {d, e, %{z | i => low, (i + 1) => high}})
    end
  end

  defp rotate([x | xs], [y | ys], s, c, low, high),
    do: rotate(xs, ys, s, c, [c * x - s * y | low], [s * x + c * y | high])

  defp rotate([], [], _s, _c, low, high), do: {Enum.reverse(low), Enum.reverse(high)}

  defp hypot(a, b) do
    scale = max(abs(a), abs(b))

    if scale == 0,
      do: 0.0,
      else: scale * :math.sqrt(a / scale * (a / scale) + b / scale * (b / scale))
  end
end
