defmodule ExCubecl.KernelLimitsTest do
  # Kernels and sources that are too deep, too large or too many. Those that could crash the VM run in another VM.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  require ExCubecl.Kernel, as: Kernel
  alias ExCubecl.Kernel.Cache

  @head "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\n"

  defp wgsl(value, more \\ ""),
    do:
      @head <>
        more <>
        "\n@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) " <>
        "{ x[id.x] = #{value}; }"

  defp nested(open, close, times),
    do: String.duplicate(open, times) <> "1.0" <> String.duplicate(close, times)

  # Functions that each call the previous one, and constants that each contain the previous one.
  defp calls(count, body),
    do:
      "fn g0(a: f32) -> f32 { return a + 1.0; }\n" <>
        Enum.map_join(1..count, "\n", &"fn g#{&1}(a: f32) -> f32 { return #{body.(&1 - 1)}; }")

  defp constants(count),
    do:
      "const c0 = array<f32, 2>(1.0, 2.0);\n" <>
        Enum.map_join(1..count, "\n", &"const c#{&1} = array(c#{&1 - 1}, c#{&1 - 1});")

  defp aliases(count),
    do:
      "alias a0 = f32;\n" <>
        Enum.map_join(1..count, "\n", &"alias a#{&1} = array<a#{&1 - 1}, 1>;") <>
        "\nvar<private> y: a#{count};"

  defp bombs do
    deep = "line 3: nested deeper than 100 levels: use variables or functions"
    long = "line 3: an expression of more than 1000 operators: split it by variables"
    many = "has more than 200000 tokens once all that it uses is written out"
    linked = "goes through more than 250 other declarations, one in the other"
    twice = &"g#{&1}(a) + g#{&1}(a * 2.0)"

    [
      {wgsl(nested("(", ")", 2000)), deep},
      {wgsl(nested("abs(", ")", 2000)), deep},
      {wgsl("f32(x[u32(" <> nested("x[u32(", ")]", 2000) <> ")])"), deep},
      {wgsl(nested("array<", ",1>", 2000)), deep},
      {wgsl("1.0", "var<private> y: " <> nested("array<", ",1>", 2000) <> ";"),
       "line 2: nested deeper than 100 levels: use variables or functions"},
      {wgsl("1.0; " <> String.duplicate("{", 2000)), deep},
      {wgsl("1.0" <> String.duplicate(" + x[id.x]", 2000)), long},
      {wgsl(String.duplicate("-", 2000) <> "1.0"), long},
      {wgsl("x[0]; if id.x == 0u {} " <> String.duplicate("else if id.x == 1u {} ", 2000)), long},
      {wgsl("g24(1.0)", calls(24, twice)), "g13 #{many}"},
      {wgsl("g2000(1.0)", calls(2000, &"g#{&1}(a)")), "g251 #{linked}"},
      {wgsl("c24[0]", constants(24)), "c13 #{many}"},
      {wgsl("1.0", aliases(2000)), "a251 #{linked}"},
      {wgsl("1.0", aliases(40)), "types of more than 32 levels, one in the other"},
      {wgsl("y[id.x]", "var<private> y: array<f32, 10000000>;"),
       "40000000 bytes of private and local arrays: at most 16384 for a thread"},
      {wgsl("1.0; var y: array<f32, 5000>; y[id.x] = 1.0"),
       "20000 bytes of private and local arrays: at most 16384 for a thread"},
      {wgsl("1.0" <> String.duplicate(" ", 200_000)),
       "the source has #{200_000 + byte_size(wgsl("1.0"))} bytes: at most 131072"}
    ]
  end

  test "a source of any size and depth is refused with the reason" do
    script = """
    {:ok, _} = Application.ensure_all_started(:ex_cubecl)
    sources = System.fetch_env!("SOURCES") |> File.read!() |> :erlang.binary_to_term()
    for source <- sources do
      {:error, error} = ExCubecl.Kernel.source(wgsl: source)
      IO.puts(Exception.message(error))
    end
    """

    path = Path.join(System.tmp_dir!(), "ex_cubecl_#{System.unique_integer([:positive])}.wgsl")
    sources = for {source, _} <- bombs(), do: source
    File.write!(path, :erlang.term_to_binary(sources))
    on_exit(fn -> File.rm(path) end)
    {out, errors, status} = in_own_vm(script, [{"SOURCES", path}])
    assert {errors, status} == {"", 0}
    expected = for {_, reason} <- bombs(), do: "the kernel cannot run: #{reason}"
    assert String.split(out, "\n", trim: true) == expected
  end

  test "sources within the limits run" do
    for {source, expected} <- [
          {wgsl(nested("(", ")", 90)), 1.0},
          {wgsl(nested("abs(", ")", 90)), 1.0},
          {wgsl("1.0" <> String.duplicate(" + 1.0", 900)), 901.0},
          {wgsl("g8(1.0)", calls(8, &"g#{&1}(a) + g#{&1}(a)")), 512.0},
          {wgsl("g200(1.0)", calls(200, &"g#{&1}(a)")), 2.0}
        ] do
      x = Buffer.zeros!([64], :f32)
      assert Kernel.run(Kernel.source!(wgsl: source), [x], groups: 1) == :ok
      assert ExCubecl.item!(Buffer.view!(x, 63, [1])) == expected
    end
  end

  test "more workgroup memory than the device has is refused" do
    source = Kernel.source!(wgsl: wgsl("y[id.x]", "var<workgroup> y: array<f32, 10000000>;"))
    error = refused(Kernel.run(source, [Buffer.zeros!([64], :f32)], groups: 1), :invalid_argument)

    assert Exception.message(error) =~
             ~r/^the kernel cannot run: 40000000 bytes of workgroup memory: a group has \d+ on this device$/
  end

  test "the device's clock measures a source too" do
    source = Kernel.source!(wgsl: wgsl("sin(f32(id.x))"))
    x = Buffer.zeros!([100_000], :f32)

    {:ok, {:ok, timing}} =
      Kernel.profile(fn -> Kernel.run(source, [x], groups: div(100_000, 64) + 1) end)

    assert timing.device_time > 0 and timing.device_time <= timing.time
  end

  defp typed(statements), do: {[], [:s32], [], [:s32], statements, nil, nil}

  defp deepest do
    one = {:const, :s32, 1}
    sum = fn _, value -> {:binary, :add, value, one} end
    pick = fn _, value -> {:select, {:binary, :lt, one, one}, one, value} end

    down = fn
      _, {:if, _, _, _} = it -> {:for, 0, one, one, [it]}
      _, it -> {:if, {:binary, :lt, one, one}, [it], []}
    end

    write = {:write, 0, one, one}

    for {_what, tree} <- [
          sum: [{:write, 0, one, Enum.reduce(1..195, one, sum)}],
          select: [{:write, 0, one, Enum.reduce(1..195, one, pick)}],
          block: [Enum.reduce(1..195, write, down)]
        ],
        do: typed(tree)
  end

  test "the deepest tree fits on half the stack of a dirty scheduler" do
    script = """
    trees = System.fetch_env!("TREES") |> File.read!() |> :erlang.binary_to_term()
    for tree <- trees, do: IO.puts(is_reference(ExCubecl.Native.kernel_new(tree) |> elem(1)))
    """

    path = Path.join(System.tmp_dir!(), "ex_cubecl_#{System.unique_integer([:positive])}.tree")
    File.write!(path, :erlang.term_to_binary(deepest()))
    on_exit(fn -> File.rm(path) end)
    env = [{"TREES", path}, {"ELIXIR_ERL_OPTIONS", "+fnu +sssdcpu 20"}]
    assert in_own_vm(script, env) == {"true\ntrue\ntrue\n", "", 0}
  end

  test "a call of a known kernel makes none" do
    x = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
    kernel = Kernel.kernel(fn x -> x * 7.25 end)
    Kernel.run!(kernel, [x])
    before = Kernel.cache!()
    Kernel.run!(kernel, [x])
    now = Kernel.cache!()
    assert {now.hits - before.hits, now.misses - before.misses} == {1, 0}
    assert now.programs <= before.programs
  end

  # Compiles kernels from generated code.
  defp compiled(ast) do
    {kernel, _} =
      Code.eval_quoted(
        quote do
          require ExCubecl.Kernel
          ExCubecl.Kernel.kernel(unquote(ast))
        end
      )

    kernel
  end

  defp indexed(lines),
    do: compiled(quote(do: fn out -> unquote({:__block__, [], lines}) end))

  # More arguments than a function of Elixir can have; a block is a call with its statements as arguments.
  test "a module has a kernel of 300 lines, and no call of 300 arguments" do
    lines = [quote(do: s = x) | for(i <- 0..299, do: quote(do: s = s + unquote(i)))]
    lines = lines ++ [quote(do: s)]
    ones = List.duplicate(1, 300)

    module = fn name, body ->
      quote do
        defmodule unquote(name) do
          use ExCubecl.Kernel
          defkernel(sum(x), do: unquote({:__block__, [], body}))
        end
      end
    end

    [{sums, _}] = Code.compile_quoted(module.(ExCubecl.KernelLimitsTest.Sums, lines))
    x = ExCubecl.buffer!([1, 2], [2], :s32)
    assert ExCubecl.to_list!(sums.sum!(x)) == [44_851, 44_852]

    for call <- [
          quote(do: some(unquote_splicing(ones))),
          quote(do: Enum.some(unquote_splicing(ones)))
        ] do
      error = assert_raise CompileError, fn -> Code.compile_quoted(module.(Refused, [call])) end
      assert Exception.message(error) =~ "some/300 is not known in kernels"
    end
  end

  # The optimizer gets a long kernel in several blocks.
  test "each of 400 variables is the one that was assigned" do
    variable = fn n -> {:"v#{n}", [], nil} end
    before = fn n -> {n - 1, rem(n * 7_919, n)} end

    lines =
      for n <- 1..400 do
        {last, other} = before.(n)

        quote(
          do: unquote(variable.(n)) = unquote(variable.(last)) - unquote(variable.(other)) * 0.5
        )
      end

    kernel =
      compiled(quote(do: fn v0 -> unquote({:__block__, [], lines ++ [variable.(400)]}) end))

    x = ExCubecl.buffer!([1.0, -3.0], [2], :f64)

    expected =
      for x <- [1.0, -3.0] do
        values =
          Enum.reduce(1..400, %{0 => x}, fn n, values ->
            {last, other} = before.(n)
            Map.put(values, n, values[last] - values[other] * 0.5)
          end)

        values[400]
      end

    assert ExCubecl.to_list!(Kernel.run!(kernel, [x])) == expected
  end

  test "kernels that are too large or too deep are refused before they are compiled" do
    out = Buffer.zeros!([4], :s32)
    write = quote(do: out[index()] = 7)
    run = fn lines -> Kernel.run(indexed(lines), [out]) end
    assert run.(List.duplicate(write, 500)) == :ok
    assert ExCubecl.to_list!(out) == [7, 7, 7, 7]

    branches =
      "the kernel cannot run: it has more than 1,000 branches, which are `if`, `for`, twice `while` and each write by an index; " <>
        "two reads count for one: use loops"

    error = refused(run.(List.duplicate(write, 1_001)), :invalid_argument)
    assert Exception.message(error) == branches

    deep = Enum.reduce(1..300, quote(do: index()), &quote(do: unquote(&2) + unquote(&1)))
    error = refused(run.([quote(do: out[index()] = unquote(deep))]), :invalid_argument)

    assert Exception.message(error) ==
             "the kernel cannot run: it is nested deeper than 200 levels: use variables"

    large = "it has more than 20,000 operations with all that it calls: use loops"

    error = assert_raise CompileError, fn -> indexed(List.duplicate(write, 10_000)) end
    assert Exception.message(error) =~ large
  end

  test "kernels that double with each call are refused where they are defined" do
    doubling =
      for n <- 1..40 do
        [call, before] = [:"twice#{n}", :"twice#{n - 1}"]
        x = {:x, [], nil}
        body = {:+, [], [{before, [], [x]}, {before, [], [x]}]}
        quote(do: defkernel(unquote({call, [], [x]}), do: unquote(body)))
      end

    module =
      quote do
        defmodule ExCubecl.KernelLimitsTest.Doubling do
          use ExCubecl.Kernel
          defkernel(twice0(x), do: x + 1)
          unquote_splicing(doubling)
        end
      end

    error = assert_raise CompileError, fn -> Code.eval_quoted(module) end

    assert Exception.message(error) =~
             "it has more than 20,000 operations with all that it calls: use loops"
  end

  test "the entry of a large kernel is small, because each launch copies it" do
    sum = Enum.reduce(1..100, quote(do: 0), &quote(do: unquote(&2) + out[unquote(&1)]))
    kernel = indexed(for n <- 1..10, do: quote(do: out[unquote(n)] = unquote(sum)))
    assert Kernel.warm(kernel, [:s32]) == :ok
    [entry] = for {{key, _, _, _}, entry} <- Cache.all(), key == kernel.key, do: entry
    assert :erts_debug.flat_size(kernel.parsed) > 1_000
    assert :erts_debug.flat_size(entry) < 60
  end

  test "the cache of kernels is bounded and keeps entries in use" do
    empty_kernel_cache()
    %{max: max} = Kernel.cache!()
    fake = fn n -> {{:fake, n}, [], false, {:vulkan, 0}} end
    make = fn -> {:ok, %{name: :fake, time: 0}} end
    on_exit(fn -> for n <- 0..(3 * max), do: :ets.delete(Cache, fake.(n)) end)

    for n <- 0..(3 * max) do
      assert {:ok, _} = Cache.fetch(fake.(n), make)
      # This entry is used in each iteration, so it is not evicted.
      assert {:ok, %{name: :fake}} = Cache.fetch(fake.(0), fn -> if n == 0, do: make.() end)
      assert Kernel.cache!().size <= max
    end

    refute Enum.any?(Cache.all(), &match?({{{:fake, 1}, _, _, _}, _}, &1))
    assert length(Kernel.list!()) == Kernel.cache!().size
  end

  test "the kernels of make many-kernels, a few of each kind, are right" do
    assert ExCubecl.ManyKernels.run(1..8, &send(self(), &1)) == :ok
    for number <- 1..8, do: assert_received(^number)
  end
end
