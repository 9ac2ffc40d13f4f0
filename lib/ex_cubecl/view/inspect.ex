defimpl Inspect, for: ExCubecl.View do
  # Prints type, shape, device, offset and strides: the elements are not read.

  alias ExCubecl.Error.Text

  def inspect(%{dtype: dtype, device: {runtime, index}} = view, opts) do
    [index, offset] = Enum.map([index, view.offset], &Integer.to_string/1)
    shape = Enum.map_join(view.shape, &"[#{Integer.to_string(&1)}]")
    place = "offset #{offset}, strides #{Text.show(view.strides)}"

    "#ExCubecl.View<#{Atom.to_string(dtype)}#{shape} #{Atom.to_string(runtime)}:#{index} #{place}>"
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(view, opts)
  end

  def inspect(view, opts), do: Inspect.Any.inspect(view, opts)
end
