defimpl Inspect, for: ExCubecl.Replicated do
  # The shape is a list of numbers, not a charlist.
  def inspect(replicated, opts),
    do: Inspect.Any.inspect(replicated, %{opts | charlists: :as_lists})
end
