defmodule ExCubecl.Kernel.ExpanderTest do
  # Pipes, module attributes, macros, loops with a value, shapes, and calls of indexed kernels.
  use ExCubecl.Case, async: false

  alias ExCubecl.Kernel

  require Kernel

  defmodule Macros do
    defmacro tau, do: 6.25
    defmacro twice(x), do: quote(do: 2 * unquote(x))
    defmacro exp(x), do: quote(do: unquote(x) + 1000)

    # `y` of the macro is not a variable of its caller.
    defmacro add_square(target, x) do
      quote do
        y = unquote(x)
        unquote(target) = unquote(target) + y * y
      end
    end
  end

  defmodule Uses do
    use ExCubecl.Kernel

    require Macros
    import Macros, except: [exp: 1]

    @gain 3
    @on true
    defkernel(scale(x), do: x * @gain)
    defkernel(flag(x), do: if(@on and x > 2, do: 1, else: 0))
    @gain 4
    defkernel(scale_again(x), do: x * @gain)
    # Kernels that call kernels with attributes.
    defkernel(both(x), do: scale(x) + scale_again(x))
    defkernel(piped(x), do: x |> both() |> twice() |> max(20))

    defkernel(constant(x), do: x + tau() + Macros.tau())
    defkernel(remote(x), do: Macros.exp(x))

    defkernel hygienic(x) do
      y = 10
      sum = 0
      add_square(sum, x)
      add_square(sum, x + 1)
      sum + y
    end

    def of_function(x), do: Kernel.run!(Kernel.kernel(fn x -> x + @gain end), [x])
  end

  defmodule Loops do
    use ExCubecl.Kernel

    defkernel row_sums(x, out) do
      out[index()] =
        for column <- 0..(shape(x, 1) - 1), reduce: 0 do
          acc -> acc + x[index() * shape(x, -1) + column]
        end
    end

    # Two loops whose values have different types.
    defkernel statistics(x, out) do
      mean =
        for i <- 0..(len(x) - 1), reduce: 0.0 do
          acc -> acc + x[i] / len(x)
        end

      large =
        for i <- 0..(len(x) - 1), reduce: 0 do
          acc ->
            more = if x[i] > mean, do: 1, else: 0
            acc + more
        end

      out[index()] = large
    end

    defkernel power(x, n) do
      for _i <- 1..n, reduce: 1 do
        product -> product * x
      end
    end

    defkernel table(x) do
      for i <- 1..2, reduce: x do
        acc ->
          inner =
            for j <- 1..i, reduce: 0 do
              acc -> acc + j
            end

          acc + inner
      end
    end
  end

  defmodule Indexed do
    use ExCubecl.Kernel

    defkernel increment(x, out, by), do: out[index()] = x[index()] + by
    defkernel count(x, bins), do: before(bins, x[index()])

    defkernel before(bins, at) do
      old = atomic_add(bins[at], 1)
      if old < 0, do: bins[at] = 0
    end

    defkernel chained(x, a, b) do
      increment(x, a, 1)
      increment(a, b, 2 * 5)
    end

    defkernel conditional(x, out) do
      if x[index()] > 2 do
        increment(x, out, 100)
      else
        __MODULE__.increment(x, out, -100)
      end
    end
  end

  defmodule Below do
    use ExCubecl.Kernel

    @doc "The first."
    @step 0
    defkernel(first(x), do: second(x) + third(x) + @step)
    @step 1
    defkernel(second(x), do: third(x) * 10)
    @doc "The last."
    defkernel(third(x), do: fourth(x) + @step)
    defkernel(fourth(x), do: x * @step)
  end

  defp ints(list, shape), do: ExCubecl.buffer!(list, shape, :s32)
  defp list(buffer), do: ExCubecl.to_list!(buffer)

  test "pipes, attributes and macros" do
    x = ints([1, 2, 3], [3])
    assert list(Uses.scale!(x)) == [3, 6, 9]
    assert list(Uses.scale_again!(x)) == [4, 8, 12]
    assert list(Uses.flag!(x)) == [0, 0, 1]
    assert list(Uses.both!(x)) == [7, 14, 21]
    assert list(Uses.piped!(x)) == [20, 28, 42]
    assert list(Uses.constant!(x)) == [13.5, 14.5, 15.5]
    assert list(Uses.hygienic!(x)) == [15, 23, 35]
    assert list(Uses.of_function(x)) == [5, 6, 7]
    assert list(Kernel.run!(Kernel.kernel(fn x -> x |> abs() |> min(2) end), [x])) == [1, 2, 2]
  end

  test "a name of the language cannot be changed by an import, only called by its module" do
    assert list(Uses.remote!(ints([1], [1]))) == [1001]

    code = """
    defmodule ExCubecl.Kernel.ExpanderTest.Imports do
      use ExCubecl.Kernel
      import ExCubecl.Kernel.ExpanderTest.Macros, only: [exp: 1], warn: false
      defkernel f(x), do: exp(x)
    end
    """

    [{module, _}] = Code.compile_string(code)
    assert list(module.f!(ExCubecl.buffer!([0.0], [1], :f32))) == [1.0]
  end

  test "kernels with attributes are kernels as others" do
    assert {:scale, 1} in Uses.__kernels__()
    x = ints([5], [1])
    assert list(Kernel.run!({Uses, :scale}, [x])) == [15]
    out = ExCubecl.Buffer.empty!([1], :s32)
    assert Uses.scale(x, into: out) == :ok
    assert list(out) == [15]
    assert list(Kernel.run!(Kernel.kernel(fn x -> Uses.both(x) + 1 end), [x])) == [36]
  end

  test "kernels are defined in any order" do
    assert list(Below.first!(ints([1, 2], [2]))) == [22, 33]
    assert Below.__kernels__() == [first: 1, fourth: 1, second: 1, third: 1]
  end

  test "loops with a value" do
    out = ExCubecl.Buffer.empty!([2], :s32)
    assert Loops.row_sums(ints([[1, 2, 3], [4, 5, 6]], [2, 3]), out) == :ok
    assert list(out) == [6, 15]
    # The same kernel for another shape.
    assert Loops.row_sums(ints([[1], [4]], [2, 1]), out) == :ok
    assert list(out) == [1, 4]
    assert Loops.row_sums(ints([], [2, 0]), out) == :ok
    assert list(out) == [0, 0]
    one = ExCubecl.Buffer.empty!([1], :s32)
    assert Loops.statistics(ints([1, 2, 9, 9], [4]), one) == :ok
    assert list(one) == [2]
    assert list(Loops.power!(ints([2, 3], [2]), 4)) == [16, 81]
    assert list(Loops.table!(ints([10], [1]))) == [14]
  end

  test "a buffer without the axis is refused before anything runs" do
    out = ExCubecl.Buffer.zeros!([1], :s32)
    assert {:error, error} = Loops.row_sums(ints([1, 2], [2]), out)
    assert error.reason == :invalid_argument

    assert Exception.message(error) =~ "a buffer that has axis 1"
    assert list(out) == [0]
    shape = Kernel.kernel(fn n, out -> out[index()] = shape(n, 0) end)
    assert {:error, %{reason: :type_mismatch} = error} = Kernel.run(shape, [3, out])
    assert Exception.message(error) =~ "shape(n, 0) is of a buffer, and n is a number"
  end

  test "indexed kernels call indexed kernels" do
    x = ints([1, 2, 3, 4], [4])
    [a, b] = for _ <- 1..2, do: ExCubecl.Buffer.empty!([4], :s32)
    assert Indexed.chained(x, a, b) == :ok
    assert {list(a), list(b)} == {[2, 3, 4, 5], [12, 13, 14, 15]}
    assert Indexed.conditional(x, a) == :ok
    assert list(a) == [-99, -98, 103, 104]
    bins = ExCubecl.Buffer.zeros!([3], :s32)
    assert Indexed.count(ints([0, 2, 2, 1, 2], [5]), bins, size: 5) == :ok
    assert list(bins) == [1, 1, 3]
    anonymous = Kernel.kernel(fn x, out -> Indexed.increment(x, out, x[0]) end)
    assert Kernel.run(anonymous, [x, b]) == :ok
    assert list(b) == [2, 3, 4, 5]
    # What the called kernel writes into is an output of the caller.
    assert {:error, %{reason: :overlap}} = Indexed.chained(x, a, a)
    assert {:error, %{reason: :invalid_argument}} = Indexed.chained(x, 1, b)
  end
end
