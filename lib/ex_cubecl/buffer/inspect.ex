defimpl Inspect, for: ExCubecl.Buffer do
  # Prints type, shape, device and the first elements; only those elements are read. It never fails
  # and never waits long: if the elements cannot be read, it prints the reason instead.

  import Inspect.Algebra

  alias ExCubecl.{Error, Native, Shape}

  @most 10
  # Milliseconds.
  @patience 500

  def inspect(%{device: {node, {runtime, index}}} = buffer, _opts)
      when is_atom(node) and is_atom(runtime) and is_integer(index) do
    # Elements of a remote buffer are not fetched for a preview.
    "#ExCubecl.Buffer<#{kind(buffer)} #{runtime}:#{index} on #{node}>"
  rescue
    _ -> Inspect.Any.inspect(buffer, %Inspect.Opts{})
  end

  def inspect(buffer, opts) do
    concat(["#ExCubecl.Buffer<", head(buffer), " ", content(buffer, opts), ">"])
  rescue
    # A struct that was built by hand.
    _ -> Inspect.Any.inspect(buffer, opts)
  end

  defp head(%{device: {runtime, index}} = buffer),
    do: "#{kind(buffer)} #{Atom.to_string(runtime)}:#{Integer.to_string(index)}"

  # Interpolation would also take lists, and print them as text.
  defp kind(%{dtype: dtype, shape: shape}),
    do: Atom.to_string(dtype) <> Enum.map_join(shape, &"[#{Integer.to_string(&1)}]")

  defp content(%{ref: ref, shape: shape}, opts) do
    case preview(ref) do
      {:ok, elements} -> elements(elements, Shape.size(shape), opts)
      {:error, error} -> state(error.reason)
    end
  end

  # In a separate process, so that a late reply does not reach the mailbox of the caller.
  defp preview(ref) do
    read = fn ->
      exit({:preview, Error.from_native(fn -> Native.buffer_preview(ref, @most) end)})
    end

    {pid, monitor} = spawn_monitor(read)

    receive do
      {:DOWN, ^monitor, :process, _, {:preview, result}} -> result
      {:DOWN, ^monitor, :process, _, _} -> Error.new(:busy)
    after
      @patience ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        Error.new(:busy)
    end
  end

  defp elements(elements, count, opts) do
    docs = Enum.map(elements, &to_doc(&1, opts))
    docs = if count > length(elements), do: docs ++ ["..."], else: docs
    concat(["[", concat(Enum.intersperse(docs, ", ")), "]"])
  end

  defp state(:not_allocated), do: "not allocated"
  defp state(:device_lost), do: "device lost"
  defp state(reason), do: Atom.to_string(reason)
end
