defimpl Inspect, for: ExCubecl.View do
  # Prints type, shape, device, offset and strides: the elements are not read.

  alias ExCubecl.Error.Text

  def inspect(%{dtype: dtype, device: {runtime, index}} = view, opts) do
    shape = Enum.map_join(view.shape, &"[#{&1}]")
    place = "offset #{view.offset}, strides #{Text.show(view.strides)}"
    "#ExCubecl.View<#{dtype}#{shape} #{runtime}:#{index} #{place}>"
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(view, opts)
  end

  def inspect(view, opts), do: Inspect.Any.inspect(view, opts)
end
