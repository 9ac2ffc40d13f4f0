defmodule ExCubecl.UniformityTest do
  # The analysis of barriers accepts and refuses what the native side accepts and refuses.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.Kernel
  alias ExCubecl.Kernel.{Resolver, Parser, Typer, Uniformity}
  alias ExCubecl.Native

  require Kernel

  defmodule Called do
    use ExCubecl.Kernel

    defkernel(twice(x), do: 2 * x)
    defkernel(pick(mode, a, b), do: if(mode == 1, do: a, else: b))
    defkernel(shifted(x), do: x + index())
    defkernel(first(x), do: x[0] + len(x))

    defkernel power(x, n) do
      result = 1

      for _i <- 1..n do
        result = result * x
      end

      result
    end
  end

  # x and out are buffers, n is a number.
  @kinds [x: {:buffer, :s32}, out: {:buffer, :s32}, n: :int]

  defp parsed(lines) do
    lines = if is_binary(lines), do: Code.string_to_quoted!(lines), else: lines
    args = for {name, _} <- @kinds, do: {name, [], nil}
    body = {:__block__, [], [lines, quote(do: out[0] = 1)]}
    env = %{__ENV__ | module: nil, line: 0}
    Parser.parse(:kernel, args, body, [group: 8], env, &Resolver.resolve(&1, &2, &3, env))
  end

  defp accepted?(parsed),
    do: Uniformity.check(parsed, for({name, {:buffer, _}} <- @kinds, do: name)) == :ok

  defp accepted_natively?(parsed) do
    {:ok, %{tree: tree}} = Typer.type(parsed, Map.new(@kinds), false)

    case Native.kernel_new(tree) do
      {:ok, _ref} -> true
      {:error, {:invalid_argument, %{reason: "a barrier" <> _}}} -> false
    end
  end

  @called "ExCubecl.UniformityTest.Called"

  @accepted [
    "barrier()",
    "if n > 3, do: barrier()",
    "if n > 3 do out[1] = 1 else barrier() end",
    "if group() == 0 and len(x) > 4 do barrier() end",
    "for i <- 0..group_size() do barrier() end",
    "for i <- 0..n do for j <- i..(len(out) - 1) do barrier() end end",
    "k = group()\nfor i <- 0..k do barrier() end",
    "k = group(:x) + n\nif k > 2 do k = k + 1\n barrier() end\nfor i <- 0..k do barrier() end",
    "k = 1\nfor i <- 0..3 do\n k = 2 * k\n for j <- 0..k do barrier() end\nend",
    "for i <- 0..3 do\n i = n\n for j <- 0..i do barrier() end\nend",
    "k = if n > 0, do: 1, else: len(x)\nfor i <- 0..k do barrier() end",
    "k = cast(cast(n, :f32), :s32)\nfor i <- 0..k do barrier() end",
    "cond do\n n > 1 -> barrier()\n n > 0 -> out[0] = 1\n true -> barrier() end",
    "if #{@called}.twice(n) > 3, do: barrier()",
    "k = #{@called}.power(n, len(x))\nfor i <- 0..k do barrier() end",
    "k = 1\nwhile k < n, limit: len(x) do\n barrier()\n k = 2 * k\nend",
    "k = local()\nwhile k > 0, limit: 3 do\n k = k - 1\nend\nbarrier()",
    "while #{@called}.power(n, 2) > 3, limit: 2, do: barrier()",
    "out[1] = plane_sum(x[local()]) + plane_size()",
    "if n > 3, do: out[local()] = plane_max(local())",
    "k = plane_broadcast(local(), 0)\nwhile plane_size() < n, limit: 3 do\n k = plane_min(k)\n n2 = k\n out[0] = n2\nend",
    # The condition is a literal, so that the thread does not decide.
    "k = if 2 > 1, do: n, else: local()\nif k > 0, do: barrier()",
    "k = #{@called}.pick(1, group(), local())\nif k > 0, do: barrier()",
    "k = local()\nif local() > 0, do: k = 1\nbarrier()\nout[k] = x[k]",
    # The counter of the loop is another variable.
    "k = 1\nfor k <- 0..local() do\n out[k] = 1\nend\nif k > 0, do: barrier()"
  ]

  @refused [
    {"if local() == 0, do: barrier()", 1},
    {"if n > 3 do\n out[1] = 1\nelse\n if index() > 0, do: barrier()\nend", 4},
    {"if x > 0, do: barrier()", 1},
    {"if x[0] > 0, do: barrier()", 1},
    {"if out > 0, do: barrier()", 1},
    {"for i <- 0..local() do\n barrier()\nend", 2},
    {"for i <- index()..n do\n barrier()\nend", 2},
    {"for i <- 0..local() do\n for j <- 0..3 do\n  barrier()\n end\nend", 3},
    {"k = local()\nfor i <- 0..k do\n barrier()\nend", 3},
    {"while local() > 0, limit: 3 do\n barrier()\nend", 2},
    {"while n > 0, limit: local() do\n barrier()\nend", 2},
    {"k = n\nwhile k > 0, limit: 3 do\n barrier()\n k = k - local()\nend", 3},
    {"k = 1\nwhile local() > 2, limit: 3 do\n k = 2\nend\nif k > 1, do: barrier()", 5},
    {"while #{@called}.power(n, local()) > 3, limit: 2, do: barrier()", 1},
    {"if local() > 0, do: out[0] = plane_sum(n)", 1},
    {"if local() > 0, do: out[plane_lane()] = x[plane_max(n)]", 1},
    {"k = plane_sum(n)\nif k > 0, do: barrier()", 2},
    {"if plane_lane() > 0, do: barrier()", 1},
    {"while plane_sum(local()) > 3, limit: 2 do\n out[0] = 1\nend", 1},
    {"k = local()\nif k > 0, do: atomic_add(out[0], plane_product(k))", 2},
    {"k = 1\nif x[0] > 0, do: k = plane_broadcast(k, 1)", 2},
    # A variable varies for the whole kernel, also before it is set to a varying value.
    {"k = 1\nif k > 0, do: barrier()\nk = local()", 2},
    {"k = 1\nfor i <- 0..3 do\n if k > 0, do: barrier()\n k = index()\nend", 3},
    {"k = 1\nif local() > 0, do: k = 2\nif k > 1, do: barrier()", 3},
    {"k = 1\nj = k\nif local() > 0, do: k = 2\nif j > 1, do: barrier()", 4},
    {"for i <- 0..3 do\n i = local()\n for j <- 0..i do\n  barrier()\n end\nend", 4},
    {"k = atomic_add(out[0], 1)\nif k > 0, do: barrier()", 2},
    {"k = if local() > 0, do: 1, else: 2\nif k > 1, do: barrier()", 2},
    {"cond do\n n > 1 -> out[0] = 1\n local() > 1 -> barrier()\nend", 3},
    {"barrier()\nif #{@called}.twice(local()) > 3, do: barrier()", 2},
    {"if #{@called}.shifted(n) > 3, do: barrier()", 1},
    {"if #{@called}.first(x) > 3, do: barrier()", 1},
    {"k = #{@called}.power(n, local())\nfor i <- 0..k do\n barrier()\nend", 3},
    {"k = #{@called}.pick(n, group(), local())\nif k > 0, do: barrier()", 2},
    {"k = #{@called}.pick(2, group(), local())\nif k > 0, do: barrier()", 2},
    {"if (if 2 > 1, do: local(), else: n) > 0, do: barrier()", 1}
  ]

  test "accepted by both sides" do
    for code <- @accepted do
      parsed = parsed(code)
      assert {code, accepted?(parsed), accepted_natively?(parsed)} == {code, true, true}
    end
  end

  test "refused by both sides, here with the line of the first barrier" do
    for {code, line} <- @refused do
      parsed = parsed(code)
      assert {code, Uniformity.check(parsed, [:x, :out])} == {code, {:error, line}}
      assert {code, accepted_natively?(parsed)} == {code, false}
    end
  end

  test "accepted kernels run" do
    for code <- @accepted do
      code =
        "require ExCubecl.Kernel\nExCubecl.Kernel.kernel(fn x, out, n -> #{code}\nout[0] = 1 end)"

      {kernel, _} = Code.eval_string(code)
      x = ExCubecl.buffer!([1, 2], [2], :s32)
      assert Kernel.run(kernel, [x, Buffer.zeros!([8], :s32), 2]) == :ok
    end
  end

  test "a buffer where a number was expected is refused when the kernel is called, with the line" do
    kernel =
      Kernel.kernel(fn n, out ->
        if n > 1, do: barrier()
        out[index()] = 1
      end)

    out = Buffer.zeros!([2], :s32)
    assert Kernel.run(kernel, [2, out]) == :ok
    error = refused(Kernel.run(kernel, [out, Buffer.zeros!([2], :s32)]), :type_mismatch)
    assert error.details.line == __ENV__.line - 7
    assert error.details.text =~ "all threads of a group must reach a barrier"
  end

  ## Random programs

  defp var(name), do: {name, [], nil}

  defp called(name, args),
    do:
      {{:., [], [{:__aliases__, [alias: false], [:ExCubecl, :UniformityTest, :Called]}, name]},
       [], args}

  defp some(list), do: Enum.random(list).()

  defp number(0, names) do
    some([
      fn -> Enum.random(0..3) end,
      fn -> var(Enum.random(names)) end,
      fn -> var(Enum.random(names)) end,
      fn ->
        Enum.random([
          quote(do: local()),
          quote(do: group()),
          quote(do: index(:x)),
          quote(do: len(x))
        ])
      end
    ])
  end

  defp number(depth, names) do
    one = fn -> number(depth - 1, names) end

    some([
      one,
      one,
      fn -> quote(do: unquote(one.()) + unquote(one.())) end,
      fn -> quote(do: x[unquote(one.())]) end,
      fn -> quote(do: cast(unquote(one.()), :s32)) end,
      fn ->
        quote(
          do: if(unquote(condition(depth - 1, names)), do: unquote(one.()), else: unquote(one.()))
        )
      end,
      fn -> called(:twice, [one.()]) end,
      fn -> called(:power, [one.(), one.()]) end,
      fn -> called(:pick, [one.(), one.(), one.()]) end
    ])
  end

  defp condition(depth, names) do
    one = fn -> number(depth, names) end

    some([
      fn -> quote(do: unquote(one.()) > unquote(one.())) end,
      fn -> quote(do: unquote(one.()) == 1 and unquote(one.()) < 3) end,
      fn -> quote(do: 1 < 2) end
    ])
  end

  # A statement, and the names that are known after it.
  defp statement(depth, names) do
    kinds =
      if depth == 0,
        do: [:set, :barrier],
        else: [:set, :set, :barrier, :if, :for, :while, :atomic]

    name = Enum.random([:a, :b, :c])

    case Enum.random(kinds) do
      :set ->
        {quote(do: unquote(var(name)) = unquote(number(2, names))), [name | names]}

      :atomic ->
        {quote(do: unquote(var(name)) = atomic_add(out[0], 1)), [name | names]}

      :barrier ->
        {quote(do: barrier()), names}

      :if ->
        {quote(
           do:
             if(unquote(condition(1, names)),
               do: unquote(block(depth, names)),
               else: unquote(block(depth, names))
             )
         ), names}

      :for ->
        {loop(depth, name, names), names}

      :while ->
        {quote(
           do:
             while(unquote(condition(1, names)),
               limit: unquote(number(1, names)),
               do: unquote(block(depth, names))
             )
         ), names}
    end
  end

  defp loop(depth, name, names) do
    range = quote(do: unquote(number(1, names))..unquote(number(1, names)))

    quote(
      do: for(unquote(var(name)) <- unquote(range), do: unquote(block(depth, [name | names])))
    )
  end

  defp block(depth, names) do
    {lines, _} =
      Enum.map_reduce(1..Enum.random(1..3), names, fn _, names -> statement(depth - 1, names) end)

    {:__block__, [], lines}
  end

  test "both sides agree on random programs" do
    seed = System.unique_integer([:positive])
    :rand.seed(:exsss, {seed, 8, 15})

    verdicts =
      for _ <- 1..600 do
        lines = block(4, [:n, :n, :x])
        parsed = parsed(lines)
        shown = "seed #{seed}: #{Macro.to_string(lines)}"
        assert {shown, accepted?(parsed)} == {shown, accepted_natively?(parsed)}
        accepted?(parsed)
      end

    assert Enum.count(verdicts, & &1) > 50
    assert Enum.count(verdicts, &(not &1)) > 50
  end
end
