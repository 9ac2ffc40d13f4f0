defimpl Inspect, for: ExCubecl.Memory.Chart do
  # One line instead of the picture.

  def inspect(%{title: title}, _opts) when is_binary(title),
    do:
      "#ExCubecl.Memory.Chart<#{title}; ExCubecl.Memory.Chart.save(chart, \"memory.html\") writes it>"

  # A struct that was built by hand.
  def inspect(chart, opts), do: Inspect.Any.inspect(chart, %{opts | charlists: :as_lists})
end
