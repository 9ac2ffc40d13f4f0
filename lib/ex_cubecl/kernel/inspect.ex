defimpl Inspect, for: ExCubecl.Kernel do
  # Prints the name and the arguments instead of the program.

  def inspect(%{parsed: %{name: name, args: [_ | _] = args}}, _opts),
    do: "#ExCubecl.Kernel<#{name}(#{Enum.join(args, ", ")})>"

  # A struct that was built by hand.
  def inspect(kernel, opts), do: Inspect.Any.inspect(kernel, %{opts | charlists: :as_lists})
end
