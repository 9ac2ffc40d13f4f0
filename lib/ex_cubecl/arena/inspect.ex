defimpl Inspect, for: ExCubecl.Arena do
  # Prints the unit, the device, and how much of the arena is used.

  alias ExCubecl.Arena

  def inspect(%{unit: unit, device: {runtime, index}} = arena, opts) do
    "#ExCubecl.Arena<#{unit} #{runtime}:#{index} #{state(arena)}>"
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(arena, %{opts | charlists: :as_lists})
  end

  def inspect(forged, opts), do: Inspect.Any.inspect(forged, %{opts | charlists: :as_lists})

  defp state(arena) do
    with {:ok, used} <- Arena.used(arena), {:ok, capacity} <- Arena.capacity(arena) do
      "#{used} of #{capacity} used"
    else
      {:error, error} -> error.reason
    end
  end
end
