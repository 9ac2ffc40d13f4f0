defmodule ExCubecl.Error.BangTest do
  # The raising twins that are generated from the specs of a module.
  use ExUnit.Case, async: true

  alias ExCubecl.Error

  defmodule Sample do
    use ExCubecl.Error.Bang

    alias ExCubecl.Error

    @type mine(value) :: {:ok, value} | {:error, Error.t()}
    @type nothing :: :ok | {:error, Error.t()}

    @spec plain(term) :: {:ok, term} | {:error, Error.t()}
    def plain(:bad), do: Error.new(:stale)
    def plain(value), do: {:ok, value}

    @spec nothing(term) :: nothing
    def nothing(:bad), do: Error.new(:stale)
    def nothing(_value), do: :ok

    @spec between(term, keyword, (() -> value)) :: mine(value) when value: term
    def between(first, opts \\ [a: 1], fun), do: {:ok, {first, opts, fun.()}}

    @spec two(integer, integer, nil | integer) :: ExCubecl.Buffer.result([term])
    def two(a, b \\ 2, c \\ nil)
    def two(0, _b, _c), do: Error.new(:busy)
    def two(a, b, c), do: {:ok, [a, b, c]}

    for name <- [:one, :other] do
      @spec unquote(name)() :: mine(atom)
      def unquote(name)(), do: {:ok, unquote(name)}
    end

    @spec never_fails(term) :: {:ok, term}
    def never_fails(value), do: {:ok, value}

    @spec good?(term) :: boolean
    def good?(term), do: term == :good
  end

  test "each function that may return an error has a twin of each of its arities, and no other function has one" do
    twins =
      for {name, arity} <- Sample.__info__(:functions),
          String.ends_with?("#{name}", "!"),
          do: {name, arity}

    assert twins == [
             between!: 2,
             between!: 3,
             nothing!: 1,
             one!: 0,
             other!: 0,
             plain!: 1,
             two!: 1,
             two!: 2,
             two!: 3
           ]
  end

  test "a twin returns the value, or raises the error, with the defaults of its function" do
    assert Sample.plain!(3) == 3
    assert Sample.nothing!(3) == :ok
    assert Sample.between!(1, fn -> 2 end) == {1, [a: 1], 2}
    assert Sample.two!(1) == [1, 2, nil]
    assert Sample.two!(1, 3) == [1, 3, nil]
    assert Sample.other!() == :other
    assert %Error{reason: :stale} = catch_error(Sample.plain!(:bad))
    assert %Error{reason: :stale} = catch_error(Sample.nothing!(:bad))
    assert %Error{reason: :busy} = catch_error(Sample.two!(0))
  end

  test "a twin has a spec with the type of the value, and a signature with the names of its function" do
    {:ok, specs} = Code.Typespec.fetch_specs(ExCubecl.Buffer)

    texts =
      for {{name, _}, [spec]} <- specs,
          String.ends_with?("#{name}", "!"),
          do: name |> Code.Typespec.spec_to_quoted(spec) |> Macro.to_string()

    assert "size!(t()) :: non_neg_integer()" in texts
    assert "copy!(t(), t()) :: :ok" in texts

    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(ExCubecl.Ops)

    {_, _, [signature], %{"en" => doc}, _} =
      List.keyfind(docs, {:function, :random_uniform!, 3}, 0)

    assert signature == "random_uniform!(shape, seed, opts \\\\ [])"

    assert doc ==
             "As `random_uniform/3`, but returns the value itself, or raises `ExCubecl.Error`."
  end

  test "a result with an error and something other than :ok or {:ok, _} is refused" do
    code = """
    defmodule ExCubecl.Error.BangTest.Mixed do
      use ExCubecl.Error.Bang
      @spec mixed() :: integer | {:error, term}
      def mixed, do: 1
    end
    """

    assert_raise ArgumentError, ~r/^mixed: integer/, fn -> Code.eval_string(code) end
  end
end
