defimpl Inspect, for: ExCubecl.Batch do
  # Prints the number of steps instead of the steps.

  alias ExCubecl.Error.Text

  def inspect(%{steps: steps}, _opts) when is_list(steps),
    do: "#ExCubecl.Batch<#{Text.count(length(steps), "step")}>"

  # A struct that was built by hand.
  def inspect(batch, opts), do: Inspect.Any.inspect(batch, %{opts | charlists: :as_lists})
end
