defmodule ExCubecl.CompileErrorTest do
  # Invalid kernels are compile errors, each with its own message.
  use ExCubecl.Case, async: false

  import ExUnit.CaptureIO
  require ExCubecl.Kernel
  alias ExCubecl.Kernel

  defmodule Filters do
    use ExCubecl.Kernel

    defkernel(twice(x), do: 2 * x)
    defkernel(mixed(a, b, t), do: a + (b - a) * t)
    defkernel(shift(x, out), do: out[index()] = x[index() + 1])
    defkernel(second(x), do: x[1] + 0 * len(x))
    defkernel(sums(x, out), group: 64, do: out[group()] = x[local()])

    def plain(x), do: x
  end

  @while_form "a loop with a condition has a limit of its iterations, and is written as: while x > 1, limit: 100 do ... end"

  # The message of a compile error without file and line. Both must be in the error.
  defp words(code) do
    capture_io(:stderr, fn ->
      error = assert_raise CompileError, fn -> Code.eval_string(code, [], file: "my.exs") end
      send(self(), {:raised, error})
    end)

    assert_received {:raised, error}
    message = Exception.message(error)
    assert [_, text] = Regex.run(~r/^my\.exs:\d+: (.*)$/s, message), message
    text
  end

  defp of(fun), do: words("require ExCubecl.Kernel; ExCubecl.Kernel.kernel(#{fun})")

  defp of_module(body) do
    name = "ExCubecl.CompileErrorTest.Made#{System.unique_integer([:positive])}"
    words("defmodule #{name} do\nuse ExCubecl.Kernel\n#{body}\nend")
  end

  @filters "ExCubecl.CompileErrorTest.Filters"

  for {code, text} <- [
        {"fn x -> end",
         "the body is empty: its last line is the result, or a line writes into an argument, as in output[i] = ..."},
        {"&(&1 + 1)",
         "a kernel is written with fn, whose arguments have names: kernel(fn x -> x + 1 end), not &"},
        {"f",
         "a kernel is compiled from its code, which must stand here: kernel(fn x -> x + 1 end), not f"},
        {":exp",
         "a kernel is compiled from its code, which must stand here: kernel(fn x -> x + 1 end), not :exp"},
        {"fn 0 -> 1\n x -> x end", "a kernel has one clause: use if or cond in its body"},
        {"fn -> 1 end", "a kernel has arguments, at least a buffer"},
        {"fn x -> y = x + 1 end",
         "the last line sets y, and the value of a kernel is that of its last line: end with y, or write into an " <>
           "argument, as in output[i] = ..."},
        {"fn x, out -> for x <- 0..3 do out[x] = 1 end end",
         "x is an argument or shared memory: give the local variable another name"},
        {"fn x when x > 0 -> x end", "guards are not known in kernels: use if in the body"},
        {"fn x -> for i <- 0..3 do i end end",
         "for has a value only with reduce:, as in: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"},
        {"fn x -> s = for(i <- 0..3, do: i)\n s + x end",
         "for has a value only with reduce:, as in: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"},
        {"fn x -> x * @gain end",
         "@gain has no value here: set it before the kernel, in its module"},
        {"fn x -> 1 + (y = x) end",
         "y = ... sets a variable and has no value: it is a line of its own, before this one"},
        {"fn x -> f.(x) end",
         "f.(x) is no call of a kernel: define it by defkernel, and call it by its name"},
        {"fn x -> x.size end",
         "x.size is not known in kernels: they have numbers, and no fields"},
        {"fn x -> x[1][2] end",
         "a buffer has one index, which counts all of its elements: x[row * columns + column]"},
        {"fn x -> (x + 1)[2] end",
         "only buffers that are passed have elements, and x + 1 is none"},
        {"fn x -> [100, x] end",
         "lists are not known in kernels: they have numbers only, and the elements of buffers"},
        {"fn x -> (fn y -> y end) end",
         "functions are no values in a kernel: define another kernel by defkernel, and call it"},
        {"fn x -> Enum.map(x, fn y -> y end) end",
         "Enum.map/2 is a function of Elixir, and kernels call kernels only: a kernel runs for each element by itself: " <>
           "write the expression of one element"},
        {"fn x -> Enum.sum(x) end",
         "Enum.sum/1 is a function of Elixir, and kernels call kernels only: write a loop, for i <- 0..(len(x) - 1), reduce: 0 " <>
           "do acc -> acc + x[i] end, or call ExCubecl.Ops.sum/2 outside of the kernel"},
        {"fn x -> Enum.at(x, 1) end",
         "Enum.at/2 is a function of Elixir, and kernels call kernels only: write x[i]"},
        {"fn x -> Bitwise.band(x, 1) end",
         "Bitwise.band/2 is a function of Elixir, and kernels call kernels only: did you mean band/2?"},
        {"fn x -> Float.round(x, 2) end",
         "Float.round/2 is a function of Elixir, and kernels call kernels only: did you mean round/1?"},
        {"fn x -> math.sin(x) end", "math.sin/1 is not known in kernels: did you mean sin/1?"},
        {"fn x -> math.foo(x) end", "math.foo/1 is not known in kernels: kernels have no fields"},
        {"fn x -> np.sin(x) end", "np.sin/1 is not known in kernels: did you mean sin/1?"},
        {"fn x -> x & 1 end", "x & 1 is a call in Elixir: the and of bits is band(x, 1)"},
        {"fn x, out -> out[threadIdx.x] = x[0] end",
         "threadIdx.x is not known in kernels: did you mean local(:x)?"},
        {"fn x, out -> out[blockIdx()] = x[0] end",
         "blockIdx/0 is not known in kernels: did you mean group()?"},
        {"fn x, out -> atomicAdd(out[0], x[0]) end",
         "atomicAdd/2 is not known in kernels: did you mean atomic_add(output[i], x)?"},
        {"fn x -> :math.pi() * x end",
         "pi/0 is not known in kernels: did you mean 3.141592653589793?"},
        {"fn x -> Nax.sin(x) end", "Nax.sin/1 is not known in kernels: did you mean sin/1?"},
        {"fn x -> Nax.multiply(x, 2) end",
         "Nax.multiply/2 is not known in kernels: did you mean a * b?"},
        {"fn x -> bitwise_and(x, 2) end",
         "bitwise_and/2 is not known in kernels: did you mean band(a, b)?"},
        {"fn x -> squrt(x) end", "squrt/1 is not known in kernels: did you mean sqrt/1?"},
        {"fn x -> ciel(x) end", "ciel/1 is not known in kernels: did you mean ceil/1?"},
        {"fn x -> cast(x, :i32) end",
         ":i32 is no type: did you mean :s32? Expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64"},
        {"fn x -> cast(x, {:f, 32}) end",
         "{:f, 32} is no type: did you mean :f32? Expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64"},
        {"fn x -> cast(x, [100]) end",
         "[100] is no type: expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64"},
        {"fn x -> :rand.uniform() + x end",
         ":rand.uniform/0 is a function of Elixir, and kernels call kernels only: they run for each element by " <>
           "themselves, and know what the documentation of ExCubecl.Kernel lists"},
        {"fn x -> elem(x, 0) end",
         "Kernel.elem/2 is a function of Elixir, and kernels call kernels only: they run for each element by " <>
           "themselves, and know what the documentation of ExCubecl.Kernel lists"},
        {"fn x -> Nowhere.f(x) end",
         "Nowhere.f/1 is not known in kernels: there is no module Nowhere, or it is compiled after this one"},
        {"fn x -> #{@filters}.blur(x) end",
         "#{@filters}.blur/1 is not known in kernels: the kernels of #{@filters} are mixed/3, second/1, shift/2, sums/2, twice/1"},
        {"fn x -> #{@filters}.plain(x) end",
         "#{@filters}.plain/1 is a function of Elixir, and kernels call kernels only: they run for each element by " <>
           "themselves, and know what the documentation of ExCubecl.Kernel lists"},
        {"fn x -> #{@filters}.mixed(x, 1) end",
         "mixed/2 is not known in kernels: there is mixed/3"},
        {"fn x, out -> out[0] = #{@filters}.shift(x, out) end",
         "shift/2 is an indexed kernel, which has no value: a call of it is a line of its own"},
        {"fn x, out -> out[0] = 1\n #{@filters}.shift(x, out + 1) end",
         "shift uses elements of out, or its length: pass an argument of this kernel there, not an expression"},
        {"fn x -> y = x\n #{@filters}.shift(x, y) end",
         "y is no argument: only buffers that are passed can be written to"},
        {"fn x, out -> #{@filters}.sums(x, out) end",
         "sums runs in groups, and only a kernel that does not can be called"},
        {"fn x -> shape(x + 1, 0) + x end",
         "shape takes an argument and an axis, such as shape(x, 0), or shape(x, -1) for the last axis"},
        {"fn x -> y = x\n shape(y, 0) + x end",
         "y is no argument: shape(x, axis) is of a buffer that is passed"},
        {"fn x, n -> shape(x, n) end",
         "the axis of shape(x, axis) is a number: from 0, or from -1 at the end"},
        {"fn x -> s = for(i <- 0..3, reduce: 0, do: (a, b -> a))\n s end",
         "for with reduce: is written as: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"},
        {"fn x -> for(i <- 0..3, reduce: 0, do: i) end",
         "for with reduce: is written as: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"},
        {"fn x, out -> while x[0] > 1 do out[0] = 1 end end", @while_form},
        {"fn x, out -> while x[0] > 1, limit: 3, step: 2 do out[0] = 1 end end", @while_form},
        {"fn x, out -> while(x[0] > 1, limit: 3)\n out[0] = 1 end", @while_form},
        {"fn x, out -> while(true)\n out[0] = 1 end", @while_form},
        {"fn x -> y = while(x > 1, limit: 3, do: x)\n y end",
         "while has no value: it is a line of its own, and sets variables that are set before it, too"},
        {"fn x -> x |> 2 end",
         "a value is piped into a call, such as x |> scale(2), and 2 is none"},
        {"fn x -> x + for(i <- 0..3, reduce: 0, do: (a -> a + i)) end",
         "for has no value inside of an expression: write sum = for ... on a line of its own, and name sum here"},
        {"fn x -> #{@filters}.second(x + 1) end",
         "second uses elements of x, or its length: pass an argument of this kernel there, not an expression"},
        {"fn x -> y = x * 2\n #{@filters}.second(y) end",
         "second uses elements of x, and y is no argument of this kernel"},
        {"fn x -> exp(x, 2) end", "exp takes 1 argument, and is given 2"},
        {"fn x -> min(x) end", "min takes 2 arguments, and is given 1"},
        {"fn x -> index(:x, :y) end", "index takes 0 arguments or 1 argument, and is given 2"},
        {"fn x -> case x do 1 -> 2 end end", "case is not known in kernels: use if or cond"},
        {"fn x -> length(x) end",
         "length is not known in kernels: use len(x) for the number of elements"},
        {"fn x -> x ^ 2 end",
         "^ is no operator: the power is x ** n, and the exclusive or of bits bxor(a, b)"},
        {"fn x -> x ^^^ 2 end", "^^^ is not known in kernels: use bxor(a, b)"},
        {"fn x -> f32(x) end", "f32 is not known in kernels: use cast(x, :f32)"},
        {"fn x -> if x in [1, 2], do: 1, else: 0 end",
         "in is not known in kernels: use comparisons that are joined by or"},
        {"fn x -> size(x) end",
         "size is not known in kernels: use len(x) for the number of elements"},
        {"fn x, out -> out[0] = x[{0, 1}] end",
         "a buffer has one index, which counts all of its elements: x[row * columns + column]"},
        {"fn x, out -> out[{0, 1, 2}] = x[0] end",
         "a buffer has one index, which counts all of its elements: out[row * columns + column]"},
        {"fn x, out -> out[0][1] = x[0] end",
         "a buffer has one index, which counts all of its elements: out[row * columns + column]"},
        {"fn x, out -> atomic_add(out[[0]], x[0]) end",
         "a buffer has one index, which counts all of its elements: out[row * columns + column]"},
        {"fn x -> raise \"no\" end",
         "raise is not known in kernels: use an output that the caller checks: a kernel cannot raise"},
        {"fn x -> foo(x) end",
         "foo/1 is not known in kernels: the documentation of ExCubecl.Kernel lists what is"},
        {"fn x -> if x > 0 do else 1 end end",
         "a branch whose value is used is one expression, and this has none"},
        {"fn x -> if x > 0, 1 end", "if is written as: if x > 0 do ... else ... end"},
        {"fn x -> cond do end end", "a cond whose value is used ends with: true -> ..."}
      ] do
    test "kernel(#{String.replace(code, "\n", "; ")})" do
      assert of(unquote(code)) == unquote(text)
    end
  end

  for {body, text} <- [
        {"defkernel fact(n), do: if(n > 1, do: n * fact(n - 1), else: 1)",
         "fact/1 calls itself, directly or through another kernel, and kernels know no recursion: write a loop, for i <- first..last do ... end"},
        {"defkernel a(x), do: b(x)\n defkernel b(x), do: a(x)",
         "b/1 calls itself, directly or through another kernel, and kernels know no recursion: write a loop, for i <- " <>
           "first..last do ... end"},
        {"defkernel a(x), do: b(x)\n defkernel b(x), do: c(x)",
         "c/1 is not known in kernels: the documentation of ExCubecl.Kernel lists what is"},
        {"def b(x), do: x\n defkernel a(x), do: b(x)",
         "b/1 is a function of Elixir, and kernels call kernels only: define it by defkernel"},
        {"defkernel a(x), do: b(x)\n defp b(x), do: x\n def c(x), do: b(x)",
         "b/1 is a function of Elixir, and kernels call kernels only: define it by defkernel"},
        {"defkernel b(x, y), do: x + y\n defkernel a(x), do: b(x)",
         "b/1 is not known in kernels: there is b/2"},
        {"defkernel a(x), do: b(x)\n defkernel b(x, y), do: x + y",
         "b/1 is not known in kernels: there is b/2"},
        {"import ExCubecl.CompileErrorTest.Filters\n defkernel a(x), do: twice(x)",
         "twice/1 is a kernel of ExCubecl.CompileErrorTest.Filters: call it as ExCubecl.CompileErrorTest.Filters.twice(...)"},
        {"defkernel a(x), do: b(x)",
         "b/1 is not known in kernels: the documentation of ExCubecl.Kernel lists what is"},
        {"defkernel exp(x), do: x",
         "exp/1 is a function of the language of kernels, which calls of it mean: give the kernel another name"},
        {"defkernel index(x), do: x",
         "index/1 is a function of the language of kernels, which calls of it mean: give the kernel another name"},
        {"defkernel a(x), do: x\n defkernel a(y), do: y + 1", "the kernel a/1 is defined twice"},
        {"def a(x), do: x\n defkernel a(y), do: y + 1",
         "a/1 is a kernel and a function: each needs a name of its own"},
        {"defkernel a(y), do: y + 1\n def a(x), do: x",
         "a/1 is a kernel and a function: each needs a name of its own"},
        {"defkernel a(x), do: x\n defkernel a(x, y), do: x + y",
         "a/2 is the kernel a/1 with options: give the other one another name"},
        {"defkernel a(x, y), do: x + y\n defkernel a(x), do: x",
         "a/2 is the kernel a/1 with options: give the other one another name"},
        {"def a(x, n), do: x + n\n defkernel a(x), do: x",
         "a/2 is the kernel a/1 with options: give the other one another name"},
        {"defkernel a(x), do: x\n def a!(x), do: x",
         "a!/1 is a kernel and a function: each needs a name of its own"},
        {"defkernel a(x), do: x\n def a!(x, n), do: x + n",
         "a!/2 is the kernel a!/1 with options: give the other one another name"},
        {"import ExCubecl.CompileErrorTest.Filters\n defkernel a(x), do: twice(x, 1)",
         "twice/2 is not known in kernels: there is twice/1"},
        {"defkernel a(x) when x > 0, do: x",
         "guards are not known in kernels: use if in the body"},
        {"defkernel a(x) do\n end",
         "the body is empty: its last line is the result, or a line writes into an argument, as in output[i] = ..."},
        {"defkernel a(), do: 1", "a kernel has arguments, at least a buffer"},
        {"defkernel a, do: 1", "a kernel is written as defkernel name(x, y) do ... end, not a"},
        {"defkernel a(x), x + 1",
         "a kernel is written as defkernel name(x, y) do ... end: there is no do"},
        {"@gain [3]\n defkernel a(x), do: x * @gain",
         "@gain is a list, and kernels have numbers only: pass it as a buffer"},
        {"defkernel a(x), do: x * @gain\n @gain 3",
         "@gain has no value here: set it before the kernel, in its module"},
        {"@gain 3\n defkernel a(x), do: x * @gain\n defkernel a(y), do: y",
         "the kernel a/1 is defined twice"},
        {"@gain 3\n def a(x), do: x\n defkernel a(y), do: y * @gain",
         "a/1 is a kernel and a function: each needs a name of its own"}
      ] do
    test "defkernel: #{String.replace(body, "\n", "; ")}" do
      assert of_module(unquote(body)) == unquote(text)
    end
  end

  test "defkernel where no module uses ExCubecl.Kernel" do
    text = "defkernel is for a module that says: use ExCubecl.Kernel"
    assert words("require ExCubecl.Kernel; ExCubecl.Kernel.defkernel(f(x), do: x)") == text
    name = "ExCubecl.CompileErrorTest.Imports"

    assert words("defmodule #{name} do\nimport ExCubecl.Kernel\ndefkernel f(x), do: x\nend") ==
             text
  end

  test "a kernel of another module is found by alias and by the name of its own" do
    code = """
    defmodule ExCubecl.CompileErrorTest.Calls do
      use ExCubecl.Kernel
      alias ExCubecl.CompileErrorTest.Filters, as: F
      defkernel one(x), do: F.twice(x) + 1
      defkernel two(x), do: __MODULE__.one(x) + ExCubecl.CompileErrorTest.Calls.one(x)
      defkernel three(x), group: 64, do: x[0] = 5
      defkernel four(y, x), do: F.second(y) + x
    end
    """

    [{module, _}] = Code.compile_string(code)
    x = ExCubecl.buffer!([1, 2], [2], :s32)
    y = ExCubecl.buffer!([10, 20], [2], :s32)
    assert ExCubecl.to_list!(module.one!(x)) == [3, 5]
    assert ExCubecl.to_list!(module.two!(x)) == [6, 10]
    assert ExCubecl.to_list!(module.four!(y, x)) == [21, 22]
    assert module.three(x) == :ok
    assert ExCubecl.to_list!(x) == [5, 2]
  end

  test "an argument may have any name" do
    x = ExCubecl.buffer!([1, 2], [2], :s32)

    assert ExCubecl.to_list!(Kernel.run!(Kernel.kernel(fn result -> result * 2 end), [x])) == [
             2,
             4
           ]

    checked = Kernel.kernel(fn report, result -> report[index()] + len(result) end)
    assert ExCubecl.to_list!(Kernel.run!(checked, [x, x], check: true)) == [3, 4]
  end

  @words String.split(~S"""
         x out 1 2.5 true nil :a "s" [1] [] {1,2} {1,2,3} %{} x[0] out[1] y index() index(:x) len(x) len(1)
         cast(x,:f32) cast(x,5) &1 &(&1) @a @a[1] f.(1) x.y Enum.map(x,1) :math.exp(x) :math.foo(x) __MODULE__
         __MODULE__.f(x) barrier() local() group(:x) group_size() shared(:f32,4) atomic_add(out[0],1) 1..2 <<1>> ?a
         x|>exp() x|>1 shape(x,0) exp(x,x) -x +x not(x) x[1][2] x[y][z] super(x) quote(do:x) ^x _ %X{} X X.y x.Y.z() &exp/1 (x;y) ()
         """)

  defp some(0), do: Enum.random(@words)

  defp some(depth) do
    e = fn -> some(depth - 1) end

    Enum.random([
      fn -> "(#{e.()} + #{e.()})" end,
      fn -> "if(#{e.()}, do: #{e.()}, else: #{e.()})" end,
      fn -> "if(#{e.()}, do: #{e.()})" end,
      fn -> "if #{e.()} do #{e.()}; #{e.()} else end" end,
      fn -> "cond do #{e.()} -> #{e.()}; true -> #{e.()} end" end,
      fn -> "cond do #{e.()}, 2 -> #{e.()} end" end,
      fn -> "(y = #{e.()})" end,
      fn -> "(#{e.()} = #{e.()})" end,
      fn -> "(out[#{e.()}] = #{e.()})" end,
      fn -> "for(i <- #{e.()}..#{e.()}, do: #{e.()})" end,
      fn -> "for(#{e.()}, do: #{e.()})" end,
      fn -> "(y = for(i <- #{e.()}..#{e.()}, reduce: #{e.()}, do: (a -> #{e.()})))" end,
      fn -> "(#{e.()} |> #{e.()})" end,
      fn -> "min(#{e.()}, #{e.()})" end,
      fn -> "foo(#{e.()})" end,
      fn -> "x[#{e.()}]" end,
      fn -> "(b = atomic_min(out[#{e.()}], #{e.()}))" end,
      fn -> "(t = shared(#{e.()}, #{e.()}))" end,
      fn -> e.() end
    ]).()
  end

  test "random code is a kernel or a compile error" do
    :rand.seed(:exsss, {14, 15, 16})
    # Elixir prints warnings for some of this code.
    capture_io(:stderr, fn -> send(self(), {:kinds, some_kinds()}) end)
    assert_received {:kinds, %{kernel: _, refused: _}}
  end

  defp some_kinds do
    kinds =
      for _ <- 1..1_500 do
        body = Enum.map_join(1..Enum.random(1..3), "\n", fn _ -> some(Enum.random(0..3)) end)

        case Code.string_to_quoted("fn x, out -> #{body} end") do
          {:ok, quoted} -> kind(quoted)
          {:error, _} -> :no_elixir
        end
      end

    Enum.frequencies(kinds)
  end

  defp kind(function) do
    code =
      quote do
        require ExCubecl.Kernel
        ExCubecl.Kernel.kernel(unquote(function))
      end

    {%Kernel{}, _} = Code.eval_quoted(code)
    :kernel
  rescue
    CompileError -> :refused
  end
end
