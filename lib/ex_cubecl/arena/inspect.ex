defimpl Inspect, for: ExCubecl.Arena do
  # Prints the unit, the device, and how much of the arena is used.

  alias ExCubecl.Arena

  def inspect(%{unit: unit, device: {runtime, index}} = arena, _opts) do
    "#ExCubecl.Arena<#{unit} #{runtime}:#{index} #{state(arena)}>"
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(arena, %Inspect.Opts{})
  end

  defp state(arena) do
    with {:ok, used} <- Arena.used(arena), {:ok, capacity} <- Arena.capacity(arena) do
      "#{used} of #{capacity} used"
    else
      {:error, error} -> error.reason
    end
  end
end
