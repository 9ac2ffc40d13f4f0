defmodule ExCubecl.Error.OperationTest do
  # Each function of the modules with operations, with a wrong term in place of each of its arguments in turn.
  use ExCubecl.Case, async: true

  require ExCubecl.Kernel

  alias ExCubecl.{Error, Kernel, LinAlg, Ops, Random}

  @kernel Kernel.kernel(fn a, b -> a + b end)
  @junk ["x", :junk, %{}, [1 | 2], {:a, :b, :c}]

  # The arguments before the options, of functions that take other terms than tensors.
  @arguments %{
    {Ops, :as_type} => [:x, :f32],
    {Ops, :broadcast_to} => [:x, [4, 4]],
    {Ops, :concatenate} => [[:x, :x]],
    {Ops, :stack} => [[:x, :x]],
    {Ops, :eye} => [2, :f32],
    {Ops, :gather} => [:x, :at],
    {Ops, :gather_nd} => [:x, :at],
    {Ops, :take} => [:x, :at],
    {Ops, :take_along_axis} => [:x, :at],
    {Ops, :indexed_add} => [:x, :at, :x],
    {Ops, :indexed_put} => [:x, :at, :x],
    {Ops, :iota} => [[2], :f32],
    {Ops, :one_hot} => [:at, 3],
    {Ops, :pad} => [:x, 0, [{1, 1, 0}, {0, 0, 0}]],
    {Ops, :put_slice} => [:x, [0, 0], :x],
    {Ops, :random_normal} => [[2], 1],
    {Ops, :random_uniform} => [[2], 1],
    {Ops, :reduce} => [:x, 0, :kernel],
    {Ops, :slice} => [:x, [0, 0], [1, 1]],
    {Ops, :split} => [:x, 2],
    {Ops, :tile} => [:x, [1, 2]],
    {Ops, :top_k} => [:x, 1],
    {Ops, :window_max} => [:x, [1, 1]],
    {Ops, :window_mean} => [:x, [1, 1]],
    {Ops, :window_min} => [:x, [1, 1]],
    {Ops, :window_product} => [:x, [1, 1]],
    {Ops, :window_sum} => [:x, [1, 1]],
    {Ops, :window_reduce} => [:x, 0, [1, 1], :kernel],
    {Ops, :window_scatter_max} => [:x, :x, 0, [1, 1]],
    {Ops, :window_scatter_min} => [:x, :x, 0, [1, 1]],
    {Random, :choice} => [:key, :x],
    {Random, :fold_in} => [:key, 1],
    {Random, :integers} => [:key, [2], 0..5],
    {Random, :key} => [1],
    {Random, :normal} => [:key, [2]],
    {Random, :shuffle} => [:key, :x],
    {Random, :split} => [:key],
    {Random, :uniform} => [:key, [2]]
  }

  # Functions that have no options.
  @bare [
    {Ops, :unique},
    {LinAlg, :cholesky},
    {LinAlg, :determinant},
    {LinAlg, :eigh},
    {LinAlg, :inverse},
    {LinAlg, :lu},
    {LinAlg, :solve},
    {Random, :fold_in},
    {Random, :key}
  ]

  setup_all do
    terms = %{
      x: ExCubecl.buffer!([[2, 1], [1, 2]], [2, 2], :f32),
      at: ExCubecl.buffer!([[0, 1], [1, 0]], [2, 2], :s32),
      key: Random.key!(1),
      kernel: @kernel
    }

    %{terms: terms}
  end

  for module <- [Ops, LinAlg, Random] do
    test "errors of #{inspect(module)} name the operation, and the argument or its value", %{
      terms: terms
    } do
      wrong =
        for {name, arguments} <- functions(unquote(module)),
            arguments = Enum.map(arguments, &term(&1, terms)),
            at <- 0..(length(arguments) - 1),
            junk <- @junk,
            problem =
              problem(unquote(module), name, List.replace_at(arguments, at, junk), at, junk),
            do: problem

      assert wrong == []
    end
  end

  test "an option that does not exist", %{terms: terms} do
    for module <- [Ops, LinAlg, Random],
        {name, arguments} <- functions(module),
        {module, name} not in @bare do
      arguments = arguments |> List.replace_at(-1, nonsense: 1) |> Enum.map(&term(&1, terms))
      assert {:error, error} = apply(module, name, arguments)
      assert Exception.message(error) =~ ~r/^#{name}: .*:nonsense/
    end
  end

  test "an operation that others are made of names the one that was called" do
    {:error, error} = Ops.random_uniform([2], :seed)
    assert Exception.message(error) =~ "random_uniform: invalid seed :seed"
    assert error.details.function == :random_uniform
  end

  test "an argument in a list has its index", %{terms: %{x: x}} do
    {:error, error} = Ops.concatenate([x, 7])

    assert Exception.message(error) ==
             "concatenate: invalid buffers[1] 7: expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1"
  end

  test "an error of several buffers names the one that it is about" do
    [x, y] = for _ <- 1..2, do: Buffer.zeros!([2], :f32)
    lazy = Buffer.empty!([2], :f32)
    integers = Buffer.zeros!([2], :s32)
    pool = start_supervised!({ExCubecl.Pool, size: 8})
    returned = ExCubecl.Pool.checkout!(pool)
    :ok = Buffer.fill(returned, 1)
    :ok = ExCubecl.Pool.checkin(pool, returned)

    for {result, start} <- [
          {Buffer.copy(lazy, x), "copy: source: nothing was ever written to this buffer"},
          {Buffer.read(lazy), "read: nothing was ever written to this buffer"},
          {Buffer.read_all([x, lazy, y]),
           "read_all: buffers[1]: nothing was ever written to this buffer"},
          {Buffer.copy(x, integers),
           "copy: source: expected elements of type s32, but they are f32"},
          {Buffer.copy(integers, x),
           "copy: source: expected elements of type f32, but they are s32"},
          {Ops.concatenate([x, y, integers]),
           "concatenate: buffers[2]: expected elements of type f32, but they are s32"},
          {Buffer.read_all([x, returned]),
           "read_all: buffers[1]: the buffer was returned to its pool"},
          {Buffer.read(returned), "read: the buffer was returned to its pool"}
        ] do
      assert {:error, error} = result
      assert String.starts_with?(Exception.message(error), start), Exception.message(error)
    end
  end

  test "predicates raise errors with their names" do
    x = Buffer.zeros!([2], :f32)

    for {name, call} <- [
          allocated?: fn -> Buffer.allocated?(1) end,
          same_storage?: fn -> Buffer.same_storage?(x, 1) end,
          overlap?: fn -> Buffer.overlap?(1, x) end,
          contiguous?: fn -> ExCubecl.View.contiguous?(1) end,
          extendable?: fn -> ExCubecl.Arena.extendable?(1) end
        ] do
      error = assert_raise Error, call
      assert String.starts_with?(Exception.message(error), "#{name}: invalid ")
    end
  end

  test "the functions of defkernel are named by their own names" do
    defmodule Named do
      use ExCubecl.Kernel
      defkernel twice(x), do: 2 * x
    end

    {:error, error} = Named.twice(Buffer.zeros!([2], :f32), nonsense: 1)
    assert Exception.message(error) =~ ~r/^twice: invalid option :nonsense/
    assert_raise Error, ~r/^twice: /, fn -> Named.twice!(Buffer.zeros!([2], :f32), out: 1) end
  end

  # The names with the arguments, whose last one are the options.
  defp functions(module) do
    for {name, functions} <-
          Enum.group_by(module.__info__(:functions), &elem(&1, 0), &elem(&1, 1)),
        not String.ends_with?(Atom.to_string(name), "!") do
      arity = Enum.max(functions)
      options = if {module, name} in @bare, do: [], else: [[]]
      count = arity - length(options)
      arguments = Map.get(@arguments, {module, name}, List.duplicate(:x, count))
      assert length(arguments) == count, "the arguments of #{name} are not known to this test"
      {name, arguments ++ options}
    end
  end

  defp term(list, terms) when is_list(list), do: Enum.map(list, &term(&1, terms))
  defp term(name, terms), do: Map.get(terms, name, name)

  defp problem(module, name, arguments, at, junk) do
    case apply(module, name, arguments) do
      {:error, %Error{} = error} ->
        message = Exception.message(error)
        named? = message =~ ~r/^#{name}: / or message =~ "of kernel #{name}: "
        # A tuple may be a shape, which is shown as a list.
        value? =
          message =~ inspect(if is_tuple(junk), do: Tuple.to_list(junk), else: junk) or
            message =~ inspect(junk)

        if not (named? and value?), do: {name, at, junk, message}

      other ->
        {name, at, junk, other}
    end
  rescue
    error -> {name, at, junk, error}
  end
end
