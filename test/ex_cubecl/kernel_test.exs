defmodule ExCubecl.KernelTest do
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.{Kernel, KernelModel, NumpyCases}

  require Kernel

  defmodule Sample do
    use ExCubecl.Kernel

    defkernel(saxpy(a, x, y), do: a * x + y)
    defkernel(scaled(x), do: saxpy(2, x, 1) / 3)

    defkernel blur(input, output) do
      i = index()

      if i > 0 and i < len(input) - 1 do
        output[i] = (input[i - 1] + input[i] + input[i + 1]) / 3
      end
    end
  end

  defmodule Other do
    use ExCubecl.Kernel
    defkernel(relu(x), do: if(x > 0, do: x, else: 0))
    defkernel(bent(x), do: relu(x) + Sample.saxpy(0.5, x, 0))
  end

  defp f32(list, shape \\ nil), do: ExCubecl.buffer!(list, shape || [length(list)], :f32)
  defp s32(list), do: ExCubecl.buffer!(list, [length(list)], :s32)

  test "bitcast of a type of another size is a type error" do
    for {kernel, says} <- [
          {Kernel.kernel(fn x -> bitcast(x, :u16) end), "f32 has not as many as u16"},
          {Kernel.kernel(fn x -> bitcast(x > 0, :u32) end), "bool has not as many as u32"},
          {Kernel.kernel(fn x -> x + bitcast(1, :f64) end), "s32 has not as many as f64"}
        ],
        do: refused(Kernel.run(kernel, [f32([1.0])]), :type_mismatch, says: says)

    assert ExCubecl.to_list!(
             Kernel.run!(Kernel.kernel(fn x -> x + bitcast(0x3F800000, :f32) end), [f32([1.0])])
           ) == [2.0]
  end

  test "bitcast is the bits as another type of the same size" do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    for {float, integers} <- [
          f32: [:u32, :s32],
          f64: [:u64, :s64],
          f16: [:u16, :s16],
          bf16: [:u16, :s16]
        ],
        float in dtypes,
        integer <- integers,
        integer in dtypes do
      list = [1.0, -0.0, 0.0, -2.5, :infinity, :neg_infinity, :nan]
      x = ExCubecl.buffer!(list, [length(list)], float)
      bits = Buffer.to_list!(Buffer.bitcast!(x, integer))

      for {kernel, y, expected} <- [
            {NumpyCases.kernel_of([:x], quote(do: bitcast(x, unquote(integer)))), x, bits},
            {NumpyCases.kernel_of(
               [:x],
               quote(do: bitcast(bitcast(x, unquote(integer)), unquote(float)))
             ), x, list},
            {NumpyCases.kernel_of([:x], quote(do: bitcast(x, unquote(float)))),
             Buffer.bitcast!(x, integer), list}
          ] do
        found = ExCubecl.to_list!(Kernel.run!(kernel, [y]))
        assert {float, integer, found} == {float, integer, expected}
      end
    end
  end

  test "an element-wise kernel makes a buffer of the shape of its arguments" do
    x = f32([1.0, 2.0, 3.0, 4.0], [2, 2])
    assert {:ok, result} = Sample.saxpy(2.0, x, x)
    assert ExCubecl.to_list!(result) == [[3.0, 6.0], [9.0, 12.0]]
    assert ExCubecl.to_list!(Sample.scaled!(f32([1.0, 4.0]))) == [1.0, 3.0]
    assert ExCubecl.to_list!(Other.bent!(f32([-2.0, 4.0]))) == [-1.0, 6.0]
    # A number, or a buffer of one element, is used for all elements.
    assert ExCubecl.to_list!(Sample.saxpy!(f32([10.0]), x, 1)) == [[11.0, 21.0], [31.0, 41.0]]
    assert ExCubecl.to_list!(Sample.saxpy!(1, f32([5.0]), 1)) == [6.0]
    assert ExCubecl.to_list!(Sample.saxpy!(1, f32([]), 1)) == []
    assert ExCubecl.to_list!(Sample.saxpy!(1, Buffer.view!(x, 1, [3]), 0)) == [2.0, 3.0, 4.0]
  end

  test "the functions of defkernel take the options of run/3" do
    x = f32([1.0, 2.0, 6.0, 4.0])
    out = Buffer.zeros!([4], :f32)
    assert Sample.saxpy(2, x, 1, into: out) == :ok
    assert ExCubecl.to_list!(out) == [3.0, 5.0, 13.0, 9.0]
    assert Sample.saxpy!(1, x, 0, into: out) == :ok
    assert ExCubecl.to_list!(out) == [1.0, 2.0, 6.0, 4.0]
    assert {:ok, result} = Sample.scaled(x, tag: :options)
    assert ExCubecl.to_list!(result) == ExCubecl.to_list!(Sample.scaled!(x, []))
    # Two of the four elements.
    assert Sample.blur(x, out, size: 2) == :ok
    assert ExCubecl.to_list!(out) == [1.0, 3.0, 6.0, 4.0]
    refused(Sample.blur(x, out, sizes: 2), :invalid_argument, says: ":size")
    refused(Sample.scaled(x, 2), :invalid_argument, says: "a keyword list")
    assert_raise Error, fn -> Sample.scaled!(x, size: 2) end
  end

  defmodule ShortNames do
    use ExCubecl.Kernel

    # Elixir's Kernel has functions of these names and arities.
    defkernel(node(x), do: x + 1)
    defkernel(elem(x, y), do: x + y)
    defkernel(hd(x), do: x + 3)
    defkernel(rem(x), do: x + 4)
  end

  test "a kernel may have the name of a function that Elixir imports" do
    x = s32([1])
    results = [ShortNames.node!(x), ShortNames.elem!(x, 2), ShortNames.hd!(x), ShortNames.rem!(x)]
    assert Enum.map(results, &ExCubecl.to_list!/1) == [[2], [3], [4], [5]]
  end

  defmodule Conditional do
    use ExCubecl.Kernel

    defkernel(half(x), do: if(rem(x, 2) == 0, do: div(x, 2), else: 3 * x + 1))

    # The condition calls a kernel, and the limit is a number of the call.
    defkernel collatz(x, limit) do
      steps = 0
      n = x

      while half(n) != 4 and n > 2, limit: limit do
        n = half(n)
        steps = steps + 1
      end

      steps
    end

    # The condition reads an element; a loop in a loop, and one that never runs.
    defkernel find(list, wanted, out) do
      at = 0

      while list[at] != wanted[index()], limit: len(list) do
        at = at + 1
      end

      inner = 0

      for i <- 1..3 do
        j = 0

        while j < i, limit: 2 do
          j = j + 1
          inner = inner + 10 * i
        end
      end

      while true, limit: -1 do
        inner = 1000
      end

      while false, limit: 10 do
        inner = 2000
      end

      out[index()] = at + inner
    end

    # The loop limit of some drivers is exceeded: an error, not a wrong result.
    defkernel count(n, out) do
      i = 0

      while i < n, limit: 10_000_000 do
        i = i + 1
      end

      out[0] = i
    end
  end

  test "the counter of a loop is no variable of the same name outside, which may have another type" do
    out = Buffer.zeros!([6], :s32)

    kernel =
      Kernel.kernel(fn out ->
        j = cast(4, :u32)

        for j <- 0..1 do
          for j <- 2..3, do: out[j] = j
          out[j] = 10 + j
        end

        out[j] = cast(j, :s32)

        for i <- 0..0 do
          k = cast(i, :u32) + 5
          out[k] = 50
        end

        for k <- 5..5, do: out[k] = out[k] + k
      end)

    Kernel.run!(kernel, [out], size: 1)
    assert ExCubecl.to_list!(out) == [10, 11, 2, 3, 4, 55]

    counting =
      Kernel.kernel(fn out ->
        for i <- 0..2 do
          i = i + 1.5
          out[0] = cast(i, :s32)
        end
      end)

    refused(Kernel.run(counting, [out]), :type_mismatch,
      says: "i counts a loop and is of s32: a value of f32 needs another name"
    )
  end

  test "loops with a condition end when it is false, or at their limit" do
    next = fn n -> if rem(n, 2) == 0, do: div(n, 2), else: 3 * n + 1 end

    steps = fn n, limit ->
      n
      |> Stream.iterate(next)
      |> Enum.take_while(&(next.(&1) != 4 and &1 > 2))
      |> length()
      |> min(limit)
    end

    list = Enum.to_list(3..40)

    for limit <- [-1, 0, 1, 7, 1000] do
      expected = Enum.map(list, &steps.(&1, max(limit, 0)))
      assert ExCubecl.to_list!(Conditional.collatz!(s32(list), limit)) == expected
    end

    out = Buffer.zeros!([3], :s32)
    Conditional.find!(s32([5, 6, 7]), s32([7, 5, 9]), out)
    # 10 + 2 * 20 + 2 * 30
    assert ExCubecl.to_list!(out) == [2 + 110, 110, 3 + 110]
  end

  test "a loop with a condition makes all its iterations, or the call is refused" do
    out = Buffer.zeros!([1], :s32)
    Conditional.count!(50_000, out)
    assert ExCubecl.to_list!(out) == [50_000]

    case Conditional.count(1_000_000, out) do
      :ok -> assert ExCubecl.to_list!(out) == [1_000_000]
      {:error, error} -> assert error.reason == :loop_limit
    end
  end

  test "types of a loop with a condition" do
    limit = Kernel.kernel(fn x, out -> while(out[0] < 1, limit: x[0], do: out[0] = 1) end)
    out = Buffer.zeros!([1], :s32)
    error = refused(Kernel.run(limit, [f32([1.0]), out]), :type_mismatch)
    assert error.details.text =~ "the limit of a loop is an integer, not a float"
    number = Kernel.kernel(fn x, out -> while(x[0] + 1, limit: 3, do: out[0] = 1) end)
    error = refused(Kernel.run(number, [f32([1.0]), out]), :type_mismatch)
    assert error.details.text =~ "a condition is a comparison"
  end

  defmodule Called do
    use ExCubecl.Kernel

    defkernel(square(x), do: x * x)

    defkernel horner(x, a, b) do
      sum = a
      sum = sum * x + b

      for i <- 1..3 do
        sum = sum * x + i
      end

      if sum > 1000 do
        sum = 1000
      end

      sum
    end

    # A kernel called twice, nested, in a condition and in a loop; each call has its own variables.
    defkernel both(x) do
      sum = horner(horner(x, 1, 0), 0, x + 1)
      i = 7

      for j <- 1..2 do
        sum = sum + horner(x, j, i)
      end

      if horner(x, 0, 0) > 50, do: sum, else: -sum
    end

    defkernel(eight(x), do: square(square(square(square(square(square(square(square(x)))))))))
  end

  test "kernels with variables and loops of their own are called" do
    horner = fn x, a, b -> min(Enum.reduce(1..3, a * x + b, &(&2 * x + &1)), 1000) end

    both = fn x ->
      sum = horner.(horner.(x, 1, 0), 0, x + 1) + horner.(x, 1, 7) + horner.(x, 2, 7)
      if horner.(x, 0, 0) > 50, do: sum, else: -sum
    end

    list = Enum.to_list(-3..5)
    assert ExCubecl.to_list!(Called.both!(s32(list))) == Enum.map(list, both)

    assert ExCubecl.to_list!(Called.both!(f32(Enum.map(list, &(&1 * 1.0))))) ==
             Enum.map(list, &(both.(&1) * 1.0))

    # An argument that is used several times is computed once.
    assert ExCubecl.to_list!(Called.eight!(f32([1.0, -1.0]))) == [1.0, 1.0]
    swap = Kernel.kernel(fn x, out -> out[len(x) - 1 - index()] = Called.both(x[index()]) end)
    out = Buffer.zeros!([9], :s32)
    Kernel.run!(swap, [s32(list), out])
    assert ExCubecl.to_list!(out) == list |> Enum.map(both) |> Enum.reverse()
  end

  test "an indexed kernel writes into its argument, and beside it nothing" do
    around = f32(List.duplicate(7.0, 100))
    output = Buffer.view!(around, 33, [4])
    assert Sample.blur(f32([1.0, 2.0, 6.0, 4.0]), output) == :ok
    assert ExCubecl.to_list!(output) == [7.0, 3.0, 4.0, 7.0]
    assert Enum.count(ExCubecl.to_list!(around), &(&1 == 7.0)) == 98
  end

  test "reads outside are zero and writes outside do nothing, wherever they go" do
    shift =
      Kernel.kernel(fn input, by, output -> output[index() + by] = input[index() - by] + 1 end)

    for by <- [0, 1, 3, -2, 1000, -1000, 2_147_483_647, -2_147_483_648, 1_073_741_824] do
      guard = f32(List.duplicate(9.0, 64))
      output = Buffer.view!(guard, 30, [4])
      assert Kernel.run(shift, [f32([1.0, 2.0, 3.0, 4.0]), by, output]) == :ok
      left = ExCubecl.to_list!(guard)
      assert Enum.take(left, 30) == List.duplicate(9.0, 30)
      assert Enum.drop(left, 34) == List.duplicate(9.0, 30)
    end
  end

  test "an index out of bounds is reported with check: true" do
    shift = Kernel.kernel(fn input, by, output -> output[index() + by] = input[index() - by] end)
    x = f32([1.0, 2.0, 3.0])
    out = f32([0.0, 0.0, 0.0])
    run = fn by, opts -> Kernel.run(shift, [x, by, out], opts) end
    assert run.(0, check: true) == :ok
    assert ExCubecl.to_list!(out) == [1.0, 2.0, 3.0]
    assert run.(1, []) == :ok
    error = refused(run.(1, check: true), :out_of_bounds, details: [kernel: :kernel, size: 3])
    assert {error.details.argument, error.details.index} in [{:input, -1}, {:output, 3}]
    refused(run.(1, check: 1), :invalid_argument)
    around = Kernel.kernel(fn x -> x[index()] + x[index() - 1] end)

    refused(Kernel.run(around, [x], check: true), :out_of_bounds,
      details: [index: -1, position: 0]
    )

    fine = Kernel.kernel(fn x -> x[min(index() + 1, len(x) - 1)] end)
    assert {:ok, result} = Kernel.run(fine, [x], check: true, tag: :checked)
    assert ExCubecl.to_list!(result) == [2.0, 3.0, 3.0]
  end

  test "types mix as in Nx" do
    add = Kernel.kernel(fn a, b -> a + b end)
    divide = Kernel.kernel(fn a, b -> a / b end)
    type = fn kernel, args -> ExCubecl.dtype!(Kernel.run!(kernel, args)) end
    one = fn dtype -> ExCubecl.buffer!([1], [1], dtype) end

    for {a, b, expected} <- [
          {:u8, :s8, "s16"},
          {:u8, :u16, "u16"},
          {:u32, :s32, "s64"},
          {:s8, :f32, "f32"},
          {:s16, :s32, "s32"},
          {:f32, :f64, "f64"}
        ],
        do: assert(type.(add, [one.(a), one.(b)]) == expected)

    assert type.(add, [one.(:u8), 3]) == "u8"
    assert type.(add, [one.(:u8), 3.5]) == "f32"
    assert type.(add, [one.(:f64), 3]) == "f64"
    assert type.(divide, [one.(:s32), one.(:s32)]) == "f32"
    compared = Kernel.run!(Kernel.kernel(fn x -> x > 1 end), [s32([0, 1, 2])])
    assert {ExCubecl.dtype!(compared), ExCubecl.to_list!(compared)} == {"u8", [0, 0, 1]}
    wide = Kernel.kernel(fn x -> cast(x, :s64) * 4_000_000_000 end)
    assert ExCubecl.to_list!(Kernel.run!(wide, [s32([3])])) == [12_000_000_000]
  end

  test "a variable takes the type of all that is assigned to it" do
    mean =
      Kernel.kernel(fn x, out ->
        sum = 0

        for i <- 0..(len(x) - 1) do
          sum = sum + x[i]
        end

        out[index()] = sum / len(x)
      end)

    out = Buffer.empty!([1], :f32)
    assert Kernel.run(mean, [f32([1.5, 2.5, 5.0]), out]) == :ok
    assert ExCubecl.to_list!(out) == [3.0]
  end

  test "floats that meet no typed operand are of :f64 in a kernel with a buffer of :f64" do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    single = fn x ->
      <<x::float-32>> = <<x::float-32>>
      x
    end

    kernels = [
      {Kernel.kernel(fn x -> x * 0 + if(x > 0, do: 0.1, else: 0.3) end), [0.3, 0.1, 0.1]},
      {Kernel.kernel(fn x ->
         choice =
           cond do
             x < 0 -> if x < -2, do: 0.7, else: 0.3
             x > 5 -> 0.6
             true -> 0.1
           end

         x * 0 + choice
       end), [0.3, 0.1, 0.6]},
      {Kernel.kernel(fn x ->
         a = 0.1
         x * 0 + a
       end), [0.1, 0.1, 0.1]},
      {Kernel.kernel(fn x -> x * 0 - sqrt(0.01) end), [-0.1, -0.1, -0.1]},
      {Kernel.kernel(fn x -> x * 0 + cast(0.1, :f32) end), List.duplicate(single.(0.1), 3)}
    ]

    with_number = [
      {Kernel.kernel(fn x, a -> x * 0 + (1 - a) end), [0.9, 0.9, 0.9]},
      {Kernel.kernel(fn x, a -> x * 0 + -a end), [-0.1, -0.1, -0.1]},
      {Kernel.kernel(fn x, a -> x * 0 + (a + a) end), [0.2, 0.2, 0.2]}
    ]

    cases =
      for({kernel, expected} <- kernels, do: {kernel, [], expected}) ++
        for {kernel, expected} <- with_number, do: {kernel, [0.1], expected}

    for type <- [:f32, :f64], type in dtypes, {kernel, numbers, expected} <- cases do
      x = ExCubecl.buffer!([-1.0, 1.0, 6.0], [3], type)
      found = Kernel.run!(kernel, [x | numbers])
      assert ExCubecl.dtype!(found) == Atom.to_string(type)
      close? = &(abs(&1 - &2) <= if(type == :f32, do: 1.0e-7, else: 1.0e-16))
      assert found |> ExCubecl.to_list!() |> Enum.zip_with(expected, close?) |> Enum.all?()
    end
  end

  test "integers that meet no typed operand are of :s64 in a kernel with a buffer of :s64 or :u64" do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    if :s64 in dtypes do
      x = ExCubecl.buffer!([1], [1], :s64)
      run = fn kernel, args -> ExCubecl.to_list!(Kernel.run!(kernel, [x | args])) end
      assert run.(Kernel.kernel(fn x, n -> x + n * 2 end), [2_000_000_000]) == [4_000_000_001]
      assert run.(Kernel.kernel(fn x, n -> x + -n end), [3_000_000_000]) == [-2_999_999_999]

      doubled =
        Kernel.kernel(fn x ->
          a = 2_000_000_000
          x + a * 2
        end)

      assert run.(doubled, []) == [4_000_000_001]
      small = Kernel.run!(Kernel.kernel(fn x -> if x > 0, do: 1, else: 0 end), [s32([5])])
      assert {small.dtype, ExCubecl.to_list!(small)} == {:s32, [1]}
    end
  end

  test "comparisons of :u64 and signed integers are of their values" do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    if :u64 in dtypes do
      words = [0, 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1]

      compared = [
        {Kernel.kernel(fn a, b -> a == b end), :equal, &==/2},
        {Kernel.kernel(fn a, b -> a != b end), :not_equal, &!=/2},
        {Kernel.kernel(fn a, b -> a < b end), :less, &</2},
        {Kernel.kernel(fn a, b -> a <= b end), :less_equal, &<=/2},
        {Kernel.kernel(fn a, b -> a > b end), :greater, &>/2},
        {Kernel.kernel(fn a, b -> a >= b end), :greater_equal, &>=/2}
      ]

      for {type, bits} <- [s8: 8, s16: 16, s32: 32, s64: 64], type in dtypes do
        signed = [-(2 ** (bits - 1)), -1, 0, 1, 2 ** (bits - 1) - 1]
        {us, ss} = Enum.unzip(for u <- words, s <- signed, do: {u, s})
        u = ExCubecl.buffer!(us, [25], :u64)
        s = ExCubecl.buffer!(ss, [25], type)

        for {kernel, name, compare} <- compared,
            {a, b, as, bs} <- [{u, s, us, ss}, {s, u, ss, us}] do
          expected = Enum.zip_with(as, bs, &if(compare.(&1, &2), do: 1, else: 0))
          assert ExCubecl.to_list!(Kernel.run!(kernel, [a, b])) == expected
          assert ExCubecl.to_list!(apply(ExCubecl.Ops, :"#{name}!", [a, b])) == expected
        end
      end
    end
  end

  test "functions have the same bits beside a buffer of another type" do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    if :f64 in dtypes do
      x = ExCubecl.buffer!(for(i <- 1..100, do: i / 7 - 5), [100], :f32)
      zero = Buffer.zeros!([100], :f64)

      for {name, kernel, beside} <- [
            {:exp, Kernel.kernel(fn x -> exp(x) end),
             Kernel.kernel(fn x, z -> exp(x) + cast(z, :f32) end)},
            {:erf, Kernel.kernel(fn x -> erf(x) end),
             Kernel.kernel(fn x, z -> erf(x) + cast(z, :f32) end)},
            {:atan2, Kernel.kernel(fn x -> atan2(x, 2.5) end),
             Kernel.kernel(fn x, z -> atan2(x, 2.5) + cast(z, :f32) end)},
            {:pow, Kernel.kernel(fn x -> abs(x) ** 1.7 end),
             Kernel.kernel(fn x, z -> abs(x) ** 1.7 + cast(z, :f32) end)},
            {:cbrt, Kernel.kernel(fn x -> cbrt(x) end),
             Kernel.kernel(fn x, z -> cbrt(x) + cast(z, :f32) end)}
          ] do
        alone = Kernel.run!(kernel, [x])
        together = Kernel.run!(beside, [x, zero])
        assert {name, together.dtype} == {name, :f32}
        assert {name, ExCubecl.to_list!(together)} == {name, ExCubecl.to_list!(alone)}
      end
    end
  end

  test "axes count from the last one, and size: replaces the shape" do
    place =
      Kernel.kernel(fn out -> out[index()] = 100 * index(:z) + 10 * index(:y) + index(:x) end)

    out = Buffer.zeros!([2, 2, 3], :s32)
    Kernel.run(place, [out])

    assert ExCubecl.to_list!(out) ==
             [[[0, 1, 2], [10, 11, 12]], [[100, 101, 102], [110, 111, 112]]]

    few = Buffer.zeros!([6], :s32)
    assert Kernel.run(place, [few], size: [2, 2]) == :ok
    assert ExCubecl.to_list!(few) == [0, 1, 10, 11, 0, 0]
    assert Kernel.run(place, [few], size: 0) == :ok

    for bad <- [-1, [], [1, 1, 1, 1], :all],
        do: refute(Kernel.run(place, [few], size: bad) == :ok)
  end

  test "cond, cast, bits and functions" do
    grade =
      Kernel.kernel(fn x ->
        cond do
          x < 0 -> 0
          x < 10 -> bsl(cast(x, :s32), 2)
          true -> 99
        end
      end)

    assert ExCubecl.to_list!(Kernel.run!(grade, [f32([-1.0, 2.7, 50.0])])) == [0, 8, 99]
    bits = Kernel.kernel(fn x -> bxor(band(x, 12), bor(1, x >>> 1)) end)
    assert ExCubecl.to_list!(Kernel.run!(bits, [s32([15])])) == [Bitwise.bxor(12, 7)]

    for {name, kernel} <- [
          exp: Kernel.kernel(fn x -> exp(x) end),
          log: Kernel.kernel(fn x -> log(x) end),
          sin: Kernel.kernel(fn x -> sin(x) end),
          cos: Kernel.kernel(fn x -> cos(x) end),
          tan: Kernel.kernel(fn x -> tan(x) end),
          tanh: Kernel.kernel(fn x -> tanh(x) end),
          sinh: Kernel.kernel(fn x -> sinh(x) end),
          cosh: Kernel.kernel(fn x -> cosh(x) end),
          asin: Kernel.kernel(fn x -> asin(x) end),
          acos: Kernel.kernel(fn x -> acos(x) end),
          atan: Kernel.kernel(fn x -> atan(x) end),
          sqrt: Kernel.kernel(fn x -> sqrt(x) end),
          erf: Kernel.kernel(fn x -> erf(x) end),
          floor: Kernel.kernel(fn x -> floor(x) end),
          ceil: Kernel.kernel(fn x -> ceil(x) end)
        ],
        x <- [0.1, 0.5, 0.9] do
      [seen] = ExCubecl.to_list!(Kernel.run!(kernel, [f32([x])]))
      assert_in_delta seen, apply(:math, name, [x]), 1.0e-3, "#{name}(#{x})"
    end

    power = Kernel.kernel(fn x, y -> x ** y end)
    assert_in_delta hd(ExCubecl.to_list!(Kernel.run!(power, [f32([2.0]), 10]))), 1024.0, 0.01
    odd = Kernel.kernel(fn x -> if nan?(x), do: 1, else: if(infinite?(x), do: 2, else: 3) end)
    assert ExCubecl.to_list!(Kernel.run!(odd, [f32([:nan, :neg_infinity, 0.0])])) == [1, 2, 3]
  end

  # The optimizer of CubeCL 0.10 panicked when it moved one of these conversions to another block.
  test "variables set in branches are converted in conditions and after them" do
    kernel =
      Kernel.kernel(fn a, b, out ->
        i = index()
        s = cast(b[i], :u16)
        t = cast(a[i], :s8)

        if b[i] <= a[i] do
          t = cast(b[i], :s8)
        end

        if not (t >= 3) do
          if t != s and b[i] != b[i] do
            s = cast(b[i] + 1, :u16)
          end
        end

        out[i] = bor(t, s)
      end)

    out = Buffer.zeros!([4], :s32)
    b = ExCubecl.buffer!([4, 1, 9, 2], [4], :u32)
    assert Kernel.run(kernel, [f32([1, 2, 3, 4]), b, out]) == :ok
    assert ExCubecl.to_list!(out) == [5, 1, 11, 2]
  end

  test "random expressions give the results of the same code in Elixir" do
    seed = System.unique_integer([:positive])
    :rand.seed(:exsss, {seed, 8, 1})
    numbers = [0, 1, -1, 5, -7, 123_456, 2_147_483_647, -2_147_483_648, 3]

    for _ <- 1..120 do
      expression = KernelModel.expression(4)
      [a, b, c] = for _ <- 1..3, do: Enum.shuffle(numbers)
      kernel = kernel_of([:a, :b, :c], expression)

      expected =
        for {{a, b}, c} <- Enum.zip(Enum.zip(a, b), c),
            do: stored(KernelModel.value(expression, %{a: a, b: b, c: c}))

      assert {:ok, result} = Kernel.run(kernel, Enum.map([a, b, c], &s32/1))
      shown = "seed #{seed}: #{Macro.to_string(expression)}"
      assert {shown, ExCubecl.to_list!(result)} == {shown, expected}
    end
  end

  test "random programs give the results of the same code in Elixir" do
    seed = System.unique_integer([:positive])
    :rand.seed(:exsss, {seed, 8, 2})

    for _ <- 1..80 do
      body = KernelModel.body(4)
      [a, b] = for _ <- 1..2, do: for(_ <- 1..KernelModel.size(), do: :rand.uniform(40) - 20)
      out = Buffer.zeros!([KernelModel.size()], :s32)
      kernel = kernel_of([:a, :b, :out], body)
      assert Kernel.run(kernel, [s32(a), s32(b), out]) == :ok
      shown = "seed #{seed}: #{Macro.to_string(body)}"
      assert {shown, ExCubecl.to_list!(out)} == {shown, KernelModel.run(body, a, b)}
    end
  end

  defp stored(true), do: 1
  defp stored(false), do: 0
  defp stored(number), do: number

  defp kernel_of(args, body) do
    function = {:fn, [], [{:->, [], [Enum.map(args, &{&1, [], nil}), body]}]}

    code =
      quote do:
              (
                require(ExCubecl.Kernel)
                ExCubecl.Kernel.kernel(unquote(function))
              )

    code |> Code.eval_quoted() |> elem(0)
  end

  describe "refused when it is compiled, with line and advice:" do
    for {code, words} <- [
          {"fn x -> y end", "y was not set before"},
          {"fn x -> foo(x) end", "foo/1 is not known"},
          {"fn x -> x && 1 end", "use and"},
          {"fn x -> x === 1 end", "use =="},
          {"fn x -> if x > 1, do: 2 end", "needs an else"},
          {"fn x -> \"text\" end", "numbers only"},
          {"fn x -> {x, x} end", "numbers only"},
          {"fn x -> x[0] = 1; y[0] = 2 end", "y is no argument"},
          {"fn x -> z = 1; z[0] end", "z is no argument"},
          {"fn x, x -> x end", "two arguments of the same name"},
          {"fn {a, b} -> a end", "arguments are names"},
          {"fn x -> x = 1; x end", "x is an argument"},
          {"fn x -> {a, b} = x; a end", "patterns are not known"},
          {"fn x -> for i <- x do x[i] = 1 end end", "no range"},
          {"fn x -> for i <- 0..3, i > 1 do x[i] = 1 end end", "a loop is written as"},
          {"fn x -> cast(x, :float) end", ":float is no type"},
          {"fn x -> index(:w) end", "an axis is"},
          {"fn x -> if x > 0 do y = 1 end\n x[0] = y end", "y was not set before"},
          {"fn x -> x[0] = 1\n x + 1 end", "does nothing here"},
          {"fn x -> cond do x > 0 -> 1 end end", "true -> ..."},
          {"fn x -> Enum.sum(x) end", "Enum.sum/1 is a function of Elixir"},
          {"fn x -> x + ExCubecl.KernelTest.Sample.blur(x, x) end", "indexed kernel"},
          {"fn x -> while(true) end", "while has no value"}
        ] do
      test code do
        code = "require ExCubecl.Kernel; ExCubecl.Kernel.kernel(#{unquote(code)})"
        error = assert_raise CompileError, fn -> Code.eval_string(code, [], file: "my.exs") end
        assert Exception.message(error) =~ unquote(words)
        assert Exception.message(error) =~ ~r/my.exs:[12]: /
      end
    end
  end

  test "numbers that are too large for a type are infinite, or refused" do
    for kernel <- [
          Kernel.kernel(fn x -> x + 1.0e300 end),
          Kernel.kernel(fn x -> x + 1.0e300 * 1.0e300 end),
          Kernel.kernel(fn x -> x + 99_999_999_999_999_999_999_999_999_999_999_999_999_999 end)
        ],
        do: assert(ExCubecl.to_list!(Kernel.run!(kernel, [f32([1.0])])) == [:infinity])

    {huge, _} =
      Code.eval_string(
        "require ExCubecl.Kernel; ExCubecl.Kernel.kernel(fn x -> x + 1#{String.duplicate("0", 400)} end)"
      )

    for x <- [f32([1.0]), s32([1])], do: refused(Kernel.run(huge, [x]), :type_mismatch)
  end

  test "refused when it is called: types" do
    x = f32([1.0])

    for {kernel, words} <- [
          {Kernel.kernel(fn x -> band(x, 1) end), "of integers"},
          {Kernel.kernel(fn x -> if x, do: 1, else: 2 end), "a condition is a comparison"},
          {Kernel.kernel(fn x -> (x > 1) + 1 end), "do not mix"},
          {Kernel.kernel(fn x -> not x end), "of a comparison"},
          {Kernel.kernel(fn x -> x > 1 and x end), "joins comparisons"},
          {Kernel.kernel(fn x -> x[x] end), "an index is an integer"}
        ] do
      error = refused(Kernel.run(kernel, [x]), :type_mismatch, says: [words, "line"])
      assert error.details.kernel == :kernel
    end

    number = Kernel.kernel(fn n, x -> n[0] + x end)
    refused(Kernel.run(number, [1, x]), :type_mismatch, says: "n is a number")
  end

  test "nesting is bounded before a stack overflows" do
    nested = &Enum.reduce(1..&1, {:x, [], nil}, fn _, inner -> {:-, [], [inner]} end)
    x = f32([1.5])
    assert ExCubecl.to_list!(Kernel.run!(kernel_of([:x], nested.(190)), [x])) == [1.5]

    for depth <- [201, 3_000],
        do:
          refused(Kernel.run(kernel_of([:x], nested.(depth)), [x]), :invalid_argument,
            says: "deeper"
          )
  end

  test "refused when it is called: arguments" do
    x = f32([1.0, 2.0])
    refused(Kernel.run(Sample.__kernel__(:saxpy, 3), [x]), :invalid_argument, says: "a, x, y")

    for bad <- [nil, "x", [1.0], :x, %{x | ref: nil}],
        do: refused(Sample.saxpy(1, x, bad), :invalid_argument, says: "y")

    refused(Sample.saxpy(1, x, f32([1.0, 2.0, 3.0])), :shape_mismatch)
    refused(Sample.saxpy(1, 2, 3), :invalid_argument, says: "at least one buffer")

    refused(Sample.saxpy(300, ExCubecl.buffer!([1], [1], :u8), 1), :invalid_value,
      details: [value: 300]
    )

    refused(Sample.blur(x, 5), :invalid_argument, says: "writes into it")
    refused(Sample.blur(x, x), :overlap)
    big = f32([1.0, 2.0, 3.0, 4.0])
    refused(Sample.blur(Buffer.view!(big, 0, [3]), Buffer.view!(big, 1, [3])), :overlap)
    assert Sample.blur(Buffer.view!(big, 0, [2]), Buffer.view!(big, 2, [2])) == :ok
    refused(Sample.saxpy(1, x, Buffer.empty!([2], :f32)), :not_allocated)
    refused(Kernel.run(:saxpy, [x]), :invalid_argument)
    refused(Kernel.run(Sample.__kernel__(:saxpy, 3), :x), :invalid_argument)
    refused(Kernel.run(Sample.__kernel__(:saxpy, 3), [1, x, x], size: 3), :invalid_argument)
    refused(Kernel.run(Sample.__kernel__(:saxpy, 3), [1, x, x], sizes: 3), :invalid_argument)
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, other} = Device.open(id, as: {runtime, 7950})
    there = ExCubecl.buffer!([1.0, 2.0], [2], :f32, device: other)
    refused(Sample.saxpy(1, x, there), :invalid_argument, says: "transfer")
    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    unless :bf16 in dtypes do
      narrow = Buffer.convert!(x, :bf16)
      refused(Sample.saxpy(1, narrow, 1), :unsupported_dtype, says: "convert to one of")
    end

    # Other kernels still work.
    assert ExCubecl.to_list!(Sample.saxpy!(1, x, x)) == [2.0, 4.0]
  end

  test "a lost device and a stale buffer" do
    {:ok, pool} = ExCubecl.Pool.start_link(size: 8, dtype: :f32)
    lent = ExCubecl.Pool.checkout!(pool)
    Buffer.fill!(lent, 1)
    ExCubecl.Pool.checkin!(pool, lent)
    refused(Sample.saxpy(1, lent, lent), :stale)
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, other} = Device.open(id, as: {runtime, 7951})
    old = ExCubecl.buffer!([1.0], [1], :f32, device: other)
    assert {:ok, _} = Sample.saxpy(1, old, old)
    Device.reset(other)
    refused(Sample.saxpy(1, old, old), :device_lost)
    new = ExCubecl.buffer!([1.0], [1], :f32, device: other)
    assert ExCubecl.to_list!(Sample.saxpy!(1, new, new)) == [2.0]
  end

  # The number of programs becomes smaller at any time: what the cache evicted is freed when the last process that used it collects garbage.
  test "one kernel for each combination of types" do
    before = Kernel.cache!()
    kernel = Kernel.kernel(fn x -> x * 3 + 77_123 end)
    for _ <- 1..10, do: Kernel.run!(kernel, [f32([1.0])])
    Kernel.run!(kernel, [s32([1])])
    now = Kernel.cache!()
    assert {now.misses - before.misses, now.hits - before.hits} == {2, 9}
    # Another kernel with the same code is the same program.
    Kernel.run!(Kernel.kernel(fn y -> y * 3 + 77_123 end), [f32([1.0])])
    assert Kernel.cache!().programs <= now.programs
    # Constant expressions are folded when the kernel is typed.
    folded =
      Kernel.kernel(fn x -> if 1 > 2, do: x, else: x * max(6 / 2 - 1, rem(7, 4)) + 77_120 + 3 end)

    plain = Kernel.kernel(fn x -> x * 3.0 + 77_120 + 3 end)
    for kernel <- [folded, plain], do: Kernel.run!(kernel, [f32([1.0])])
    assert Kernel.cache!().programs <= now.programs + 1
  end

  test "a kernel is warmed, kept and listed" do
    kernel = Kernel.kernel(fn x, by -> x * by + 4321 end)
    assert Kernel.warm(kernel, [:s32, 2]) == :ok
    {:ok, kernels} = Kernel.list()
    assert kernels == Kernel.list!()
    listed = Enum.filter(kernels, &(&1.arguments == [x: {:buffer, :s32}, by: :int]))
    assert [%{kernel: :kernel, check: false, compile_time: time} | _] = listed
    assert time > 0
    before = Kernel.cache!()
    assert ExCubecl.to_list!(Kernel.run!(kernel, [s32([1]), 2])) == [4323]
    # With a result of one element a buffer of one element is not broadcast: nothing was compiled.
    assert Kernel.cache!().misses == before.misses

    assert Map.delete(Memory.report!().kernels, :programs) ==
             Map.delete(Kernel.cache!(), :programs)

    assert Kernel.warm({Sample, :saxpy}, [1.0, :f32, f32([1.0])]) == :ok
    refused(Kernel.warm({Sample, :saxpy}, [1.0, :f32]), :invalid_argument)
    refused(Kernel.warm({Sample, :nothing}, [1.0]), :invalid_argument)
    refused(Kernel.warm({Sample, 7}, [1.0]), :invalid_argument)
    refused(Kernel.warm(kernel, [:s32 | 2]), :invalid_argument)
    refused(Kernel.run(kernel, [1 | 2]), :invalid_argument)
    refused(Kernel.run({Sample, :saxpy}, [1 | 2]), :invalid_argument)
    refused(Kernel.warm(kernel, [:s32, "2"]), :invalid_argument)
    refused(Kernel.warm(kernel, [:s32, 2], device: {:vulkan, 99}), :unknown_device)
    refused(Kernel.warm(kernel, [:s32, 2], often: 1), :invalid_argument)
    refused(Kernel.warm(Kernel.kernel(fn x -> not x end), [:s32]), :type_mismatch)
  end

  test "kernels are timed by the device's clock" do
    x = Buffer.iota!([1_000_000], :f32)
    slow = Kernel.kernel(fn x -> exp(sin(cos(x))) end)
    Kernel.run!(slow, [x])
    run = fn times -> fn -> for _ <- 1..times, do: Kernel.run!(slow, [x]) end end

    for times <- [1, 8] do
      {[_ | _], timing} = Kernel.profile!(run.(times))
      assert timing.clock in [:device, :host]
      assert timing.device_time in 1..timing.time
    end

    assert {:nothing, %{device_time: 0}} = Kernel.profile!(fn -> :nothing end)
    id = ExCubecl.default_device!()
    assert {:there, %{device_time: 0}} = Kernel.profile!([device: id], fn -> :there end)
    assert_raise RuntimeError, fn -> Kernel.profile(fn -> raise "in between" end) end
    assert catch_throw(Kernel.profile(fn -> throw(:out) end)) == :out
    refused(Kernel.profile(:fun), :invalid_argument)
    refused(Kernel.profile([device: {:vulkan, 99}], fn -> 1 end), :unknown_device)
  end

  test "a kernel that was built by hand is refused" do
    forged = %Kernel{parsed: nil, key: nil}
    x = f32([1, 2])
    refused(Kernel.run(forged, [x]), :invalid_argument, says: "invalid kernel nil")
    refused(Kernel.warm(forged, [:f32]), :invalid_argument)

    refused(
      ExCubecl.Batch.submit(ExCubecl.Batch.run(ExCubecl.Batch.new(), forged, [x])),
      :invalid_argument
    )
  end

  test "many processes, each with its own numbers" do
    tasks =
      for n <- 1..8 do
        Task.async(fn ->
          x = f32(List.duplicate(n / 1, 1000))

          for _ <- 1..20,
              do: assert(Enum.uniq(ExCubecl.to_list!(Sample.saxpy!(2, x, n))) == [3.0 * n])
        end)
      end

    Task.await_many(tasks, :infinity)
  end

  test "results are accounted for, tagged and collected" do
    {bytes, count} = settled()

    result =
      Kernel.run!(Sample.__kernel__(:saxpy, 3), [1, Buffer.zeros!([1000], :f32), 1], tag: :made)

    assert Memory.report!().by_tag[:made] == %{bytes: 4000, buffers: 1}
    eventually({bytes + 4000, count + 1})
    assert Buffer.size!(result) == 4000
  end
end
