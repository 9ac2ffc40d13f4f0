# Nx's own tests, with ExCubecl.Backend as the default backend. The variables are
#
#   NX_SOURCES     the directory of the sources of the loaded version of Nx, with its tests in test/
#   NX_HOST_LIMIT  the option `host_limit:`
#   NX_FILES       names of tests, such as "nx/vectorize,nx/defn"; all by default
#
# The last lines of the output name each failed test with its reason: {file, test, reason}, where the reason is {:ulp, n} for floats that differ by
# n units in the last place at most.
#
# The tests compare tensors by `==`, which holds only for tensors of Nx.BinaryBackend: here `assert a == b` compares them on that backend. Tensors in attributes of
# modules, which can only be of that backend, are copied to the backend under test where a test reads the attribute.

defmodule ExCubecl.NxSuites do
  alias Nx.Tensor, as: T

  @doc "Compiles a file of tests."
  def require_file(path) do
    path
    |> File.read!()
    |> Code.string_to_quoted!(file: path)
    |> rewritten()
    |> Code.compile_quoted(path)
  end

  # Only comparisons that are asserted: others may be guards or numerical definitions.
  defp rewritten(code) do
    Macro.prewalk(code, fn
      {:assert, meta, [{:==, _, [left, right]} | _message]} ->
        {{:., meta, [__MODULE__, :assert_same]}, meta, [left, right]}

      {:unless, meta, [{:==, at, [left, right]}, body]} ->
        {:unless, meta, [{{:., at, [__MODULE__, :same?]}, at, [left, right]}, body]}

      {:test, meta, args} when is_list(args) ->
        {:test, meta, Macro.postwalk(args, &attribute_read/1)}

      other ->
        other
    end)
  end

  defp attribute_read({:@, meta, [{_name, _, context}]} = read) when is_atom(context),
    do: {{:., meta, [__MODULE__, :on_default]}, meta, [read]}

  defp attribute_read(other), do: other

  def on_default(value), do: mapped(value, &Nx.backend_copy(&1, Nx.default_backend()))

  def same?(left, right), do: on_host(left) == on_host(right)

  def assert_same(left, right) do
    same?(left, right) ||
      raise ExUnit.AssertionError,
        left: left,
        right: right,
        message: inspect({:differ, ulps(on_host(left), on_host(right))})
  end

  defp on_host(value) do
    mapped(value, fn
      %T{data: %ExCubecl.Backend{}} = tensor -> Nx.backend_copy(tensor, Nx.BinaryBackend)
      other -> other
    end)
  end

  # A value with other tensors in it.
  defp mapped(%T{} = tensor, fun), do: fun.(tensor)

  defp mapped(%module{} = struct, fun),
    do: struct |> Map.from_struct() |> mapped(fun) |> Map.put(:__struct__, module)

  defp mapped(%{} = map, fun), do: Map.new(map, fn {key, value} -> {key, mapped(value, fun)} end)
  defp mapped([head | tail], fun), do: [mapped(head, fun) | mapped(tail, fun)]

  defp mapped(tuple, fun) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> mapped(fun) |> List.to_tuple()

  defp mapped(other, _fun), do: other

  # The largest difference in units in the last place, or :other.
  defp ulps(same, same), do: 0

  defp ulps(%T{type: {kind, bits}} = a, %T{} = b) when kind in [:f, :bf, :c] do
    if %{a | data: nil} == %{b | data: nil} do
      bits = if kind == :c, do: div(bits, 2), else: bits
      most(Enum.zip(ordered(a, bits), ordered(b, bits)), fn {x, y} -> abs(x - y) end)
    else
      :other
    end
  end

  defp ulps(a, b) when is_list(a) and is_list(b) and length(a) == length(b),
    do: most(Enum.zip(a, b), fn {x, y} -> ulps(x, y) end)

  defp ulps(a, b) when is_tuple(a) and is_tuple(b), do: ulps(Tuple.to_list(a), Tuple.to_list(b))

  defp ulps(%{} = a, %{} = b) when not is_struct(a, T) and not is_struct(b, T),
    do: if(Map.keys(a) == Map.keys(b), do: ulps(Map.values(a), Map.values(b)), else: :other)

  defp ulps(a, b) when is_float(a) and is_float(b),
    do: ulps(Nx.tensor(a, backend: Nx.BinaryBackend), Nx.tensor(b, backend: Nx.BinaryBackend))

  defp ulps(_a, _b), do: :other

  # :other, an atom, is more than all numbers.
  defp most(list, fun), do: list |> Enum.map(fun) |> Enum.max(fn -> 0 end)

  # Floats as integers in the same order.
  defp ordered(tensor, bits) do
    for <<word::native-size(bits) <- Nx.to_binary(tensor)>> do
      sign = Bitwise.bsl(1, bits - 1)
      if word >= sign, do: sign - word, else: word
    end
  end

  defmodule Formatter do
    use GenServer

    def init(_options), do: {:ok, []}

    def handle_cast(
          {:test_finished, %{state: {:failed, failures}, name: name, tags: tags}},
          done
        ),
        do:
          {:noreply,
           [{Path.basename(tags.file, "_test.exs"), to_string(name), reason(hd(failures))} | done]}

    def handle_cast({:suite_finished, _times}, done) do
      for failure <- Enum.sort(done),
          do: IO.puts(inspect({:failed, failure}, limit: :infinity, printable_limit: :infinity))

      {:noreply, done}
    end

    def handle_cast(_event, done), do: {:noreply, done}

    defp reason({_kind, %ExUnit.AssertionError{message: "{:differ, " <> rest} = error, _stack}) do
      case Integer.parse(rest) do
        {n, "}"} -> {:ulp, n}
        _ -> {:differ, inspect(error.left), inspect(error.right)}
      end
    end

    defp reason({_kind, %_{} = error, _stack}), do: Exception.message(error)
    defp reason({kind, value, _stack}), do: inspect({kind, value})
  end
end

Application.put_env(:ex_cubecl, :add_backend_on_inspect, false)
sources = System.fetch_env!("NX_SOURCES")
# Fixtures are named relative to the directory of the sources.
File.cd!(sources)
tests = Path.join(sources, "test")

# The documentation has tests of its own (doctests.exs); tests of other nodes need nodes with fixed names.
ExUnit.configure(
  exclude: [:distributed, test_type: :doctest],
  assert_receive_timeout: 10_000,
  formatters: [ExUnit.CLIFormatter, ExCubecl.NxSuites.Formatter]
)

for path <- Path.wildcard(tests <> "/support/*.ex"), do: ExCubecl.NxSuites.require_file(path)

names =
  case System.get_env("NX_FILES") do
    nil ->
      for(path <- Path.wildcard(tests <> "/**/*_test.exs"), do: path) --
        [tests <> "/nx/doctest_test.exs"]

    files ->
      for name <- String.split(files, ","), do: "#{tests}/#{name}_test.exs"
  end

for path <- names, do: ExCubecl.NxSuites.require_file(path)

limit = String.to_integer(System.get_env("NX_HOST_LIMIT", "64"))
Nx.global_default_backend({ExCubecl.Backend, host_limit: limit})
