defmodule ExCubecl.PolicyTest do
  # One rule for every public function: a tuple and a twin, predicates with booleans, the device as an option, functions and options last.
  use ExCubecl.Case, async: true

  alias ExCubecl.Policy

  test "every public function follows the policy" do
    functions = Policy.functions()
    assert length(functions) > 200
    found = for(f <- functions, v <- Policy.violations(f), do: {v, f.module, f.name})
    assert found == [], inspect(found, limit: :infinity, pretty: true)
  end

  test "the policy finds a function of each kind that does not follow it" do
    error = {:error, "ExCubecl.Error.t()"}

    function = %{
      module: ExCubecl.Memory,
      name: :trim,
      arities: 0..1,
      documented?: true,
      example?: true,
      args: [:opts],
      specs: [{[quote(do: keyword)], [:value, error]}],
      exported: [trim: 0, trim: 1, trim!: 0, trim!: 1]
    }

    fun = quote(do: (() -> term))
    assert Policy.violations(function) == []

    for {change, violation} <- [
          {%{documented?: false}, :documented},
          {%{example?: false}, :example},
          {%{specs: [], exported: []}, :documented},
          {%{specs: [{[], [{:other, "integer()"}]}], exported: []}, :result},
          {%{specs: [{[], [:value, {:other, "nil"}, error]}]}, :result},
          {%{specs: [{[], [:value, {:error, "atom()"}]}]}, :result},
          {%{exported: [trim: 0, trim: 1, trim!: 1]}, :twin},
          {%{specs: [{[], [:value]}]}, :twin},
          {%{name: :trim?, specs: [{[], [:value]}], exported: []}, :predicate},
          {%{args: [:device]}, :device},
          {%{args: [:fun, :opts]}, :function_last},
          {%{specs: [{[fun, quote(do: keyword)], [:value, error]}]}, :function_last},
          {%{args: [:opts, :bytes]}, :options_last},
          {%{args: [:buffer, :count, :offset]}, :offset_first}
        ],
        do:
          assert(
            {change, Policy.violations(Map.merge(function, change))} == {change, [violation]}
          )
  end

  test "predicates raise for a wrong argument" do
    predicates =
      for %{name: name, specs: [{[_ | _] = types, _}]} = function <- Policy.functions(),
          String.ends_with?("#{name}", "?"),
          Enum.map(types, &Macro.to_string/1) != ["term()"],
          do: {function.module, name, length(types)}

    assert {Buffer, :overlap?, 2} in predicates

    for {module, name, arity} <- predicates, junk <- [nil, 1, %{}, make_ref(), {:vulkan, 0}] do
      assert_raise Error, fn -> apply(module, name, List.duplicate(junk, arity)) end
    end
  end
end
