defmodule ExCubecl.Ops.FourierTest do
  # Transforms of random shapes, axes and lengths, compared with sums in plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1]

  alias ExCubecl.Ops

  setup do
    :rand.seed(:exsss, {3, 16, 2026})
    :ok
  end

  # Elements by their coordinates; the last axis of the shape has the pairs.
  defp elements(buffer) do
    pairs = buffer |> Buffer.to_flat_list!() |> Enum.chunk_every(2) |> Enum.map(&List.to_tuple/1)
    Map.new(Enum.zip(coordinates(Enum.drop(buffer.shape, -1)), pairs))
  end

  # The sum of all elements along the axis, times roots of unity.
  defp reference(elements, shape, axis, n, sign) do
    for at <- coordinates(List.replace_at(shape, axis, n)), into: %{} do
      k = Enum.at(at, axis)

      sum =
        Enum.reduce(0..(n - 1), {0.0, 0.0}, fn j, {re, im} ->
          {a, b} = Map.get(elements, List.replace_at(at, axis, j), {0.0, 0.0})
          angle = sign * 2 * :math.pi() * rem(j * k, n) / n
          {c, s} = {:math.cos(angle), :math.sin(angle)}
          {re + a * c - b * s, im + a * s + b * c}
        end)

      {at, sum}
    end
  end

  defp scaled(elements, n), do: Map.new(elements, fn {at, {a, b}} -> {at, {a / n, b / n}} end)

  # The norm of the difference is a few units in the last place of the norm.
  defp close(buffer, expected, unit) do
    found = elements(buffer)
    assert Map.keys(found) |> Enum.sort() == Map.keys(expected) |> Enum.sort()
    norm = fn list -> :math.sqrt(Enum.sum(for {a, b} <- list, do: a * a + b * b)) end

    differences = for {at, {a, b}} <- found, {c, d} = expected[at], do: {a - c, b - d}

    assert norm.(differences) <= 12 * unit * norm.(Map.values(expected))
  end

  defp unit(:f64), do: 2.3e-16
  defp unit(_), do: 1.2e-7

  # Only transforms of many numbers have passes of radix 16.
  test "transforms of many rows have the numbers of those of few" do
    for {rows, n} <- [{1024, 256}, {60, 4800}, {300, 1001}], inverse? <- [false, true] do
      x = Ops.random_uniform!([rows, n, 2], n)
      name = if inverse?, do: :ifft!, else: :fft!
      found = apply(Ops, name, [x])
      columns = apply(Ops, name, [Ops.transpose!(x, axes: [1, 0, 2]), [axis: 0]])

      for at <- [0, rows - 2] do
        few = apply(Ops, name, [Ops.slice!(x, [at, 0, 0], [2, n, 2])])
        close(Ops.slice!(found, [at, 0, 0], [2, n, 2]), elements(few), unit(:f32))
        column = Ops.slice!(columns, [0, at, 0], [n, 2, 2])
        close(Ops.transpose!(column, axes: [1, 0, 2]), elements(few), unit(:f32))
      end
    end
  end

  defp random(shape, dtype) do
    count = Enum.product(shape)
    list = for _ <- 1..count//1, do: Enum.random(-99..99)
    ExCubecl.buffer!(list, shape, dtype)
  end

  defp computes?(dtype), do: dtype in Device.info!(nil).dtypes

  test "transforms along any axis, shortened or filled with zeros" do
    for _ <- 1..60 do
      rank = Enum.random(1..4)
      shape = for _ <- 1..rank, do: Enum.random([0, 1, 2, 3, 5])
      axis = Enum.random(0..(rank - 1))
      shape = List.replace_at(shape, axis, Enum.random([1, 2, 6, 8, 11, 12, 16, 21, 35]))
      dtype = Enum.random([:f32, :f64])

      if computes?(dtype) do
        x = random(shape ++ [2], dtype)
        n = Enum.random([nil, 1, 7, 9, 13, 16, 40])
        opts = if n, do: [axis: axis - rank, length: n], else: [axis: axis]
        n = n || Enum.at(shape, axis)
        expected = reference(elements(x), shape, axis, n, -1)
        close(Ops.fft!(x, opts), expected, unit(dtype))
        inverse = reference(elements(x), shape, axis, n, 1)
        close(Ops.ifft!(x, opts), scaled(inverse, n), unit(dtype))
      end
    end
  end

  test "every small length, and long ones" do
    for n <- Enum.to_list(1..40) ++ [121, 128, 210, 243, 509, 512, 1000] do
      x = random([n, 2], :f32)
      result = Ops.fft!(x)
      close(result, reference(elements(x), [n], 0, n, -1), unit(:f32))
      close(Ops.ifft!(result), elements(x), unit(:f32))
    end
  end

  # A transform of one wave has one element, wherever the rounding errors of sums are.
  test "a wave of a length that needs tables of both kinds" do
    for n <- [5000, 6561, 65_536, 10_007] do
      k = div(n, 3)

      wave =
        for j <- 0..(n - 1), into: <<>> do
          angle = 2 * :math.pi() * rem(j * k, n) / n
          <<:math.cos(angle)::float-32-native, :math.sin(angle)::float-32-native>>
        end

      result = Ops.fft!(ExCubecl.buffer!(wave, [n, 2], :f32))
      peak = Buffer.to_list!(Buffer.view!(result, 2 * k, [2]))
      assert_in_delta hd(peak), n, n * 1.0e-6
      Buffer.write!(result, [0, 0], offset: 2 * k)
      assert Buffer.item!(Ops.reduce_max!(Ops.abs!(result))) < n * 1.0e-6
    end
  end

  test "real numbers of every type" do
    for dtype <- ExCubecl.DType.all() do
      if dtype != :f64 or computes?(:f64) do
        shape = [2, Enum.random([1, 2, 7, 10, 22])]
        list = for _ <- 1..Enum.product(shape), do: Enum.random(0..15)
        x = ExCubecl.buffer!(list, shape, dtype)
        n = Enum.at(shape, 1)

        pairs = Map.new(Enum.zip(coordinates(shape), list), fn {at, x} -> {at, {x / 1, 0.0}} end)
        whole = reference(pairs, shape, 1, n, -1)
        close(Ops.fft!(x, real: true), whole, unit(dtype))
        half = Map.filter(whole, fn {[_, k], _} -> k <= div(n, 2) end)
        result = Ops.rfft!(x)
        close(result, half, unit(dtype))
        back = Ops.irfft!(result, length: n)
        assert {back.shape, back.dtype} == {shape, if(dtype == :f64, do: :f64, else: :f32)}

        for {a, b} <- Enum.zip(Buffer.to_flat_list!(back), list),
            do: assert_in_delta(a, b, 1.0e-4)
      end
    end
  end

  test "the inverse of a real transform ignores what real numbers cannot have" do
    x = ExCubecl.buffer!([[1, 5], [2, 3], [4, 6]], [3, 2], :f32)
    y = ExCubecl.buffer!([[1, 0], [2, 3], [4, 0]], [3, 2], :f32)
    assert Buffer.to_list!(Ops.irfft!(x)) == Buffer.to_list!(Ops.irfft!(y))
    assert Buffer.to_list!(Ops.irfft!(y, length: 1)) == [1.0]
    # Missing elements are zeros.
    assert Ops.irfft!(y, length: 9).shape == [9]
    assert_in_delta Buffer.item!(Ops.sum!(Ops.irfft!(y, length: 9))), 1.0, 1.0e-6
  end

  # More numbers than a short transform has are transformed as half as many complex ones, if they are even and along the last axis.
  test "many real numbers have the transform of complex ones" do
    for {shape, axis} <- [
          {[8190], 0},
          {[3, 1410], 1},
          {[2500, 2], 1},
          {[2, 4097], 1},
          {[4098, 2], 0}
        ] do
      x = Ops.random_uniform!(shape, 7)
      n = Enum.at(shape, axis)
      whole = Ops.fft!(x, real: true, axis: axis)
      half = List.replace_at(shape, axis, div(n, 2) + 1) ++ [2]
      expected = Ops.slice!(whole, Enum.map(half, fn _ -> 0 end), half)
      result = Ops.rfft!(x, axis: axis)
      close(result, elements(expected), unit(:f32))
      into = Buffer.empty!(half, :f32)
      assert Ops.rfft!(x, axis: axis, into: into) == :ok
      assert Buffer.read!(into) == Buffer.read!(result)

      back = Ops.irfft!(result, axis: axis, length: n)
      assert back.shape == shape
      assert Buffer.item!(Ops.reduce_max!(Ops.abs!(Ops.subtract!(back, x)))) < 4.0e-6
      into = Buffer.empty!(shape, :f32)
      assert Ops.irfft!(result, axis: axis, length: n, into: into) == :ok
      assert Buffer.read!(into) == Buffer.read!(back)
    end
  end

  test "many real numbers of other lengths, and what real numbers cannot have" do
    x = Ops.random_uniform!([2, 3001, 2], 8)
    zeros = Buffer.zeros!([2, 1, 1], :f32)
    real = Ops.put_slice!(x, [0, 0, 1], zeros)

    for n <- [6000, 4400, 9000] do
      # The number opposite to the first, if it is given.
      real = if n == 6000, do: Ops.put_slice!(real, [0, 3000, 1], zeros), else: real
      given = if n == 4400, do: Ops.put_slice!(real, [0, 2200, 1], zeros), else: real
      result = Ops.irfft!(x, length: n)
      assert result.shape == [2, n]
      assert Buffer.read!(result) == Buffer.read!(Ops.irfft!(given, length: n))
      h = div(n, 2) + 1
      expected = Ops.slice!(given, [0, 0, 0], [2, min(h, 3001), 2])
      zeros = Buffer.zeros!([2, h - min(h, 3001), 2], :f32)
      expected = if h > 3001, do: Ops.concatenate!([expected, zeros], axis: 1), else: expected
      close(Ops.rfft!(result), elements(expected), unit(:f32))
    end

    infinite =
      Ops.put_slice!(Buffer.zeros!([5000], :f32), [4], ExCubecl.buffer!([:infinity], [1], :f32))

    assert [:infinity, _] = Buffer.to_list!(Buffer.view!(Ops.rfft!(infinite), 0, [2]))
  end

  test "two axes" do
    x = random([2, 6, 11, 2], :f32)
    rows = reference(elements(x), [2, 6, 11], 2, 11, -1)
    both = reference(rows, [2, 6, 11], 1, 6, -1)
    result = Ops.fft2!(x)
    close(result, both, unit(:f32))
    close(Ops.ifft2!(result), elements(x), unit(:f32))
    short = reference(reference(elements(x), [2, 6, 11], 0, 3, -1), [3, 6, 11], 1, 4, -1)
    close(Ops.fft2!(x, axes: [1, 0], lengths: [4, 3]), short, unit(:f32))
    assert Ops.fft2!(random([3, 5], :s32), real: true).shape == [3, 5, 2]
  end

  test "NaN and infinities" do
    x = ExCubecl.buffer!([[:nan, 0], [1, 0]], [2, 2], :f32)
    assert Buffer.to_list!(Ops.fft!(x)) == [[:nan, 0.0], [:nan, 0.0]]
    y = ExCubecl.buffer!([:infinity, 1], [2], :f32)
    assert [[:infinity, _], [:infinity, _]] = Buffer.to_list!(Ops.fft!(y, real: true))
    # The rows of a batch are independent.
    z = ExCubecl.buffer!([[:nan, 1, 2], [1, 1, 1]], [2, 3], :f32)
    assert z |> Ops.fft!(real: true) |> Buffer.to_list!() |> Enum.at(1) |> hd() == [3.0, 0.0]
  end

  test "a strided view is transformed as its elements" do
    x = random([4, 3, 2], :f32)
    turned = ExCubecl.View.transpose!(x, axes: [1, 0, 2])
    copy = Ops.transpose!(x, axes: [1, 0, 2])
    assert Buffer.read!(Ops.fft!(turned)) == Buffer.read!(Ops.fft!(copy))
  end

  test "refused" do
    x = random([4, 3], :f32)
    refused(Ops.fft(x), :invalid_argument, says: "fft: invalid shape [4, 3]: expected complex")
    refused(Ops.fft(random([], :f32)), :invalid_argument, says: "fft")
    refused(Ops.fft(random([], :f32), real: true), :invalid_argument, says: "fft: invalid axis")
    refused(Ops.ifft(x, real: true, axis: 2), :invalid_argument, says: "ifft: invalid axis 2")
    refused(Ops.rfft(x, length: 0), :invalid_argument, says: "rfft: invalid length 0")
    refused(Ops.rfft(x, length: 2.0), :invalid_argument, says: "rfft: invalid length 2.0")
    refused(Ops.rfft(random([0], :f32)), :invalid_argument, says: "rfft: invalid length 0")
    refused(Ops.irfft(random([1, 2], :f32)), :invalid_argument, says: "irfft: invalid length 0")
    refused(Ops.fft(x, real: 1), :invalid_argument, says: "fft: invalid real 1")
    refused(Ops.fft(x, lengths: [1]), :invalid_argument, says: "option")
    refused(Ops.fft(:x), :invalid_argument)
    refused(Ops.fft2(x, real: true, axes: [1, -1]), :invalid_argument, says: "fft2: invalid axes")
    refused(Ops.fft2(x, real: true, axes: [1]), :invalid_argument, says: "fft2: invalid axes")

    refused(Ops.ifft2(x, real: true, lengths: 4), :invalid_argument,
      says: "ifft2: invalid lengths"
    )

    huge = Integer.pow(2, 60)
    refused(Ops.fft(x, real: true, length: huge), :invalid_argument, says: "fft: invalid length")

    assert reason(Ops.fft(x, real: true, length: 100_000_000)) in [
             :too_large,
             :out_of_memory,
             :limit_exceeded
           ]
  end
end
