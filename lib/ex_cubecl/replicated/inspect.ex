defimpl Inspect, for: ExCubecl.Replicated do
  # Prints the type, the shape, and the devices of the copies or shards.

  alias ExCubecl.Error.Text

  def inspect(%{buffers: [_ | _] = buffers, shape: shape, dtype: dtype} = rep, opts)
      when is_list(shape) do
    kind = if rep.shards, do: "shards", else: "copies"
    devices = Enum.map_join(buffers, ", ", &Text.device(&1.device))
    "#ExCubecl.Replicated<#{dtype}#{Enum.map_join(shape, &"[#{&1}]")} #{kind} on #{devices}>"
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(rep, %{opts | charlists: :as_lists})
  end

  def inspect(forged, opts), do: Inspect.Any.inspect(forged, %{opts | charlists: :as_lists})
end
