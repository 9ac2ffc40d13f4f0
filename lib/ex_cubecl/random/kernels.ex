defmodule ExCubecl.Random.Kernels do
  @moduledoc false
  # One kernel for each kind of draw. The words are those that Nx.Random draws for a shape: the counters 0 to n - 1 are divided into two halves, and counter i of the
  # first half is hashed with counter i of the second one; the first words of all hashes are the first half of the result.

  alias ExCubecl.Kernel
  alias ExCubecl.Kernel.Definition
  alias ExCubecl.Random.Threefry

  require Kernel

  kernel = fn name, quoted ->
    quoted |> Code.eval_quoted([], __ENV__) |> elem(0) |> Definition.named(name)
  end

  [a, b, c, d] = for name <- [:a, :b, :c, :d], do: Macro.var(name, nil)

  # Each invocation draws elements i and half + i; after an odd number of counters there is one more 0.
  pair =
    quote do
      i = index()
      a = cast(i, :u32)
      b = cast(if(half + i < n, do: half + i, else: 0), :u32)
      unquote_splicing(Threefry.code(a, b))
    end

  {:__block__, _, pair} = pair

  words =
    quote do
      Kernel.kernel(fn k0, k1, n, half, out ->
        unquote_splicing(pair)
        out[i] = a
        out[half + i] = b
      end)
    end

  # The upper bits of a word are the digits of a float in [0, 1).
  uniform =
    quote do
      Kernel.kernel(fn k0, k1, n, half, mask, shift, unit, scale, low, out ->
        unquote_splicing(pair)
        u = cast(bsr(band(a, cast(mask, :u32)), shift), :f32) * unit
        v = cast(bsr(band(b, cast(mask, :u32)), shift), :f32) * unit
        out[i] = max(u * scale + low, low)
        out[half + i] = max(v * scale + low, low)
      end)
    end

  # As `uniform`, but each invocation draws one element: for functions of more code than a hash, which then is in the kernel once.
  uniform_one =
    quote do
      Kernel.kernel(fn k0, k1, n, half, mask, shift, unit, scale, low, out ->
        at = index()
        i = if at < half, do: at, else: at - half
        unquote_splicing(tl(pair))
        word = if at < half, do: a, else: b
        u = cast(bsr(band(word, cast(mask, :u32)), shift), :f32) * unit
        out[at] = max(u * scale + low, low)
      end)
    end

  # A number of 64 bits is the hash of counters i and n + i.
  uniform_f64 =
    quote do
      Kernel.kernel(fn k0, k1, n, scale, low, out ->
        i = index()
        a = cast(i, :u32)
        b = cast(n + i, :u32)
        unquote_splicing(Threefry.code(a, b))
        u = cast(a, :f64) * 1_048_576 + cast(bsr(b, 12), :f64)
        out[i] = max(u * 2.220446049250313e-16 * scale + low, low)
      end)
    end

  # An integer is the remainder of a number with twice as many bits, whose halves are the hash of counters i and n + i. With a span of up to 16 bits, all
  # products have at most 32 bits.
  integers =
    quote do
      Kernel.kernel(fn k0, k1, n, mask, span, multiplier, low, out ->
        i = index()
        a = cast(i, :u32)
        b = cast(n + i, :u32)
        unquote_splicing(Threefry.code(a, b))
        upper = rem(band(a, cast(mask, :u32)), span) * multiplier
        out[i] = rem(upper + rem(band(b, cast(mask, :u32)), span), span) + low
      end)
    end

  # With a larger span by long division: not every device has integers of 64 bits.
  integers_32 =
    quote do
      Kernel.kernel(fn k0, k1, n, span, low, out ->
        i = index()
        a = cast(i, :u32)
        b = cast(n + i, :u32)
        unquote_splicing(Threefry.code(a, b))
        rest = rem(a, span)

        for j <- 0..31 do
          carry = bsr(rest, 31)
          rest = bor(bsl(rest, 1), band(bsr(b, 31 - j), 1))
          if carry == 1 or rest >= span, do: rest = rest - span
        end

        out[i] = rest + low
      end)
    end

  # The halves of a number of 128 bits are two hashes.
  integers_64 =
    quote do
      Kernel.kernel(fn k0, k1, n, span, multiplier, low, out ->
        i = index()
        a = cast(i, :u32)
        b = cast(2 * n + i, :u32)
        c = cast(n + i, :u32)
        d = cast(3 * n + i, :u32)
        unquote_splicing(Threefry.code(a, b))
        unquote_splicing(Threefry.code(c, d))
        upper = bor(bsl(cast(a, :u64), 32), cast(b, :u64))
        lower = bor(bsl(cast(c, :u64), 32), cast(d, :u64))
        out[i] = rem(rem(upper, span) * multiplier + rem(lower, span), span) + low
      end)
    end

  @kernels %{
    words: kernel.(:words, words),
    uniform: kernel.(:uniform, uniform),
    uniform_one: kernel.(:uniform, uniform_one),
    uniform_f64: kernel.(:uniform, uniform_f64),
    integers: kernel.(:integers, integers),
    integers_32: kernel.(:integers, integers_32),
    integers_64: kernel.(:integers, integers_64)
  }

  def kernel(name), do: Map.fetch!(@kernels, name)

  @doc "The kernel with another name, which applies a function to the code of each value that it writes. `key` identifies the function."
  @spec map(Kernel.t(), atom, term, [atom], (tuple -> tuple)) :: Kernel.t()
  def map(%{parsed: parsed} = kernel, name, key, args, fun) do
    statements =
      for statement <- parsed.statements do
        case statement do
          {:write, line, out, index, value} -> {:write, line, out, index, fun.(value)}
          other -> other
        end
      end

    {args, out} = {parsed.args ++ args, :out}
    args = List.delete(args, out) ++ [out]
    parsed = %{parsed | name: name, args: args, statements: statements}
    %{kernel | parsed: parsed, key: {kernel.key, name, key}}
  end
end
