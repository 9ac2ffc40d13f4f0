defmodule ExCubecl.Ops.Kernels do
  @moduledoc false
  # The kernels of ExCubecl.Ops. A buffer is treated as [outer, n, inner], where n is the length of the axis of the operation.

  use ExCubecl.Kernel

  defkernel(iota(n, inner, out), do: out[index()] = rem(div(index(), inner), n))

  defkernel eye(n, out) do
    i = index()
    out[i] = if rem(i, n) == div(i, n), do: 1, else: 0
  end

  ## Cumulative operations. `running` is within each chunk, `combine` adds the result of the preceding chunks. Products of lengths are of :s32, also where the
  # elements have 64 bits.

  for {name, step} <- [
        sum: quote(do: acc + x),
        product: quote(do: acc * x),
        min: quote(do: min(acc, x)),
        max: quote(do: max(acc, x))
      ] do
    kernels =
      quote do
        defkernel unquote(:"running_#{name}")(input, n, inner, chunk, chunks, out) do
          i = index()
          start = rem(div(i, inner), chunks) * chunk
          base = (div(i, cast(inner, :s32) * chunks) * n + start) * inner + rem(i, inner)
          acc = input[base]
          out[base] = acc

          for j <- 1..(chunk - 1) do
            if start + j < n do
              x = input[base + j * inner]
              acc = unquote(step)
              out[base + j * inner] = acc
            end
          end
        end

        defkernel unquote(:"combine_#{name}")(before, n, inner, chunk, chunks, out) do
          i = index()
          c = div(rem(div(i, inner), n), chunk)
          o = div(i, cast(inner, :s32) * n)

          if c > 0 do
            acc = before[(o * chunks + c - 1) * inner + rem(i, inner)]
            x = out[i]
            out[i] = unquote(step)
          end
        end
      end

    Code.eval_quoted(kernels, [], __ENV__)
  end

  # The last result of each chunk; 0 for an incomplete last chunk, which no chunk follows.
  defkernel last_of_chunks(results, n, inner, chunk, chunks, out) do
    i = index()
    last = (rem(div(i, inner), chunks) + 1) * chunk - 1
    at = (div(i, cast(inner, :s32) * chunks) * n + last) * inner + rem(i, inner)
    out[i] = if last < n, do: results[at], else: 0
  end
end
