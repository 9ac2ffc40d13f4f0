defmodule ExCubecl.Kernel.Bindings do
  @moduledoc false
  # The buffers of a kernel in the order in which the native side numbers them: its inputs, its outputs, the report of `check: true`, and
  # the shared memory of a workgroup. The typed tree, the arguments of a launch and the names in errors are all derived from this list.

  @type binding :: {:input, atom} | {:output, atom} | :result | :report | {:shared, atom}

  @doc "The bindings of a parsed kernel for the kinds of its arguments; `:result` is the new buffer of an element-wise kernel."
  @spec new(map, %{atom => term}, boolean) :: [binding]
  def new(%{outputs: outputs} = kernel, kinds, report?) do
    inputs =
      for name <- kernel.args, buffer?(kinds[name]), name not in outputs, do: {:input, name}

    written = if outputs == [], do: [:result], else: for(name <- outputs, do: {:output, name})
    report = if report?, do: [:report], else: []
    shared = for {name, _type, _length} <- kernel.shared, do: {:shared, name}
    inputs ++ written ++ report ++ shared
  end

  defp buffer?({kind, _dtype}) when kind in [:buffer, :one], do: true
  defp buffer?(_kind), do: false

  @doc "The number of a binding, or `nil` if there is none."
  def slot(bindings, binding), do: Enum.find_index(bindings, &(&1 == binding))

  @doc "The numbers of the bindings that have a name, by name."
  def slots(bindings),
    do: for({{_role, name}, slot} <- Enum.with_index(bindings), into: %{}, do: {name, slot})

  @doc "The names of the inputs, in order."
  def inputs(bindings), do: for({:input, name} <- bindings, do: name)

  @doc "The names of the outputs that are arguments, in order."
  def outputs(bindings), do: for({:output, name} <- bindings, do: name)
end
