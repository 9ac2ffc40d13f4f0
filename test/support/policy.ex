defmodule ExCubecl.Policy do
  @moduledoc false
  # The rules of the public functions, checked on their documentation and specs; `policy_test.exs` applies them to every public module.

  alias ExCubecl.{Batch, Buffer, Device, DType, Pool, Sweep}

  # These cannot fail, or follow the conventions of OTP.
  @plain [
    {ExCubecl, :supported_dtypes},
    {ExCubecl, :version},
    {DType, :all},
    {Batch, :new},
    {Batch, :run},
    {Batch, :copy},
    {Batch, :fill},
    {Pool, :start_link},
    {Pool, :child_spec}
  ]

  # Facades of functions of ExCubecl.Compat, a callback of OTP, and functions that only the VMs of test/nx can call.
  @without_example [
    {ExCubecl, :device_count},
    {ExCubecl, :device_info},
    {ExCubecl, :kernels},
    {ExCubecl, :memory_info},
    {ExCubecl, :run_kernel},
    {Pool, :child_spec}
  ]

  # The device that these are about; everywhere else it is an option.
  @device_arguments [
    {Device, :info},
    {Device, :remove},
    {Device, :synchronize},
    {Device, :reset},
    {Buffer, :transfer}
  ]

  @doc "Every documented function of the public modules, except callbacks and macros."
  def functions do
    for module <- Sweep.modules(),
        {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module),
        {:ok, specs} = Code.Typespec.fetch_specs(module),
        {{:function, name, arity}, _, [signature | _], doc, meta} <- docs,
        doc != :hidden,
        {module, name} != {ExCubecl.Error, :message} do
      specs = for {{^name, ^arity}, specs} <- specs, spec <- specs, do: spec

      %{
        module: module,
        name: name,
        arities: (arity - Map.get(meta, :defaults, 0))..arity,
        documented?: doc != %{} and doc != :none,
        example?: example?(doc),
        args: arguments(signature),
        specs: Enum.map(specs, &typed(name, &1)),
        exported: module.__info__(:functions)
      }
    end
  end

  defp arguments(signature) do
    {_name, _, args} = Code.string_to_quoted!(signature)

    for arg <- List.wrap(args) do
      case arg do
        {:\\, _, [{name, _, _}, _default]} -> name
        {name, _, _} -> name
      end
    end
  end

  defp typed(name, spec) do
    case Code.Typespec.spec_to_quoted(name, spec) do
      {:when, _, [{:"::", _, [{_, _, types}, result]}, _]} -> {types, alternatives(result)}
      {:"::", _, [{_, _, types}, result]} -> {types, alternatives(result)}
    end
  end

  # `result(value)` is `{:ok, value} | {:error, error}` in every module that has this type.
  defp alternatives({:|, _, [one, other]}), do: alternatives(one) ++ alternatives(other)
  defp alternatives({:{}, _, [one, other]}), do: alternatives({one, other})
  defp alternatives({:ok, _}), do: [:value]
  defp alternatives(:ok), do: [:ok]
  defp alternatives({:error, error}), do: [{:error, Macro.to_string(error)}]
  defp alternatives({:result, _, _}), do: [:value, {:error, "ExCubecl.Error.t()"}]

  defp alternatives({{:., _, [_module, :result]}, _, _}),
    do: [:value, {:error, "ExCubecl.Error.t()"}]

  defp alternatives(other), do: [{:other, Macro.to_string(other)}]

  @doc "Whether documentation, in any form of `Code.fetch_docs/1`, has an example."
  def example?(doc), do: inspect(doc, limit: :infinity, printable_limit: :infinity) =~ "iex>"

  @doc "What is wrong with a function, as sentences; `[]` if nothing is."
  def violations(function) do
    rules = [
      documented: &documented/1,
      example: &example/1,
      result: &result/1,
      twin: &twin/1,
      predicate: &predicate/1,
      device: &device/1,
      function_last: &function_last/1,
      options_last: &options_last/1,
      offset_first: &offset_first/1
    ]

    for {rule, check} <- rules, not check.(function), do: rule
  end

  defp documented(%{documented?: documented?, specs: specs}),
    do: documented? and length(specs) == 1

  # A twin has the example of its function, and a facade that of the module that it names.
  defp example(%{example?: example?} = function),
    do: example? or twin?(function) or {function.module, function.name} in @without_example

  # A tuple or `:ok`, with errors of the library; a twin returns the value itself.
  defp result(%{specs: specs} = function) do
    predicate?(function) or twin?(function) or {function.module, function.name} in @plain or
      Enum.all?(specs, fn {_, results} ->
        Enum.all?(results, &(&1 in [:ok, :value, {:error, "ExCubecl.Error.t()"}]))
      end)
  end

  defp twin(%{name: name, arities: arities, exported: exported} = function) do
    twins = for arity <- arities, do: {:"#{name}!", arity}

    if fails?(function),
      do: twins -- exported == [],
      else: not Enum.any?(twins, &(&1 in exported))
  end

  defp fails?(%{specs: specs}),
    do: Enum.any?(specs, fn {_, results} -> Enum.any?(results, &match?({:error, _}, &1)) end)

  defp predicate(%{specs: specs} = function),
    do: not predicate?(function) or match?([{_, [{:other, "boolean()"}]}], specs)

  defp device(%{args: args} = function),
    do: :device not in args or {function.module, plain(function)} in @device_arguments

  defp function_last(%{args: args, specs: specs}) do
    Enum.all?(specs, fn {types, _} ->
      types |> Enum.drop(-1) |> Enum.all?(&(not function?(&1)))
    end) and
      :fun not in Enum.drop(args, -1)
  end

  defp function?([{:->, _, _}]), do: true
  defp function?(_type), do: false

  # Only a function comes after the options.
  defp options_last(%{args: args}),
    do: Enum.drop_while(args, &(&1 != :opts)) in [[], [:opts], [:opts, :fun]]

  defp offset_first(%{args: args}) do
    case Enum.find_index(args, &(&1 == :offset)) do
      nil ->
        true

      index ->
        args |> Enum.take(index) |> Enum.all?(&(&1 not in [:count, :len, :length, :size, :shape]))
    end
  end

  defp predicate?(function), do: String.ends_with?(Atom.to_string(function.name), "?")
  defp twin?(function), do: String.ends_with?(Atom.to_string(function.name), "!")

  defp plain(%{name: name}),
    do: name |> Atom.to_string() |> String.trim_trailing("!") |> String.to_existing_atom()
end
