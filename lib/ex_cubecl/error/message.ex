defmodule ExCubecl.Error.Message do
  @moduledoc false
  # Builds the message of every error from its details.

  alias ExCubecl.Error.Message.{Arguments, Elements, Memory, Places, Shapes}
  alias ExCubecl.Error.Text

  # The module that has the words for a reason.
  @modules for {module, reasons} <- [
                 {Arguments, [:invalid_argument, :file, :invalid_file]},
                 {Elements,
                  [
                    :invalid_value,
                    :unsupported_dtype,
                    :type_mismatch,
                    :out_of_bounds,
                    :overlap,
                    :not_allocated,
                    :loop_limit
                  ]},
                 {Memory, [:too_large, :out_of_memory, :limit_exceeded, :pool_exhausted, :stale]},
                 {Places,
                  [
                    :no_device,
                    :unknown_device,
                    :device_in_use,
                    :device_lost,
                    :node_down,
                    :unsupported,
                    :timeout,
                    :busy,
                    :driver,
                    :nif_not_loaded
                  ]},
                 {Shapes, [:invalid_shape, :shape_mismatch]}
               ],
               reason <- reasons,
               into: %{},
               do: {reason, module}

  @doc "The message: what was wrong, what was expected, and what to do. An error from another node names that node."
  def of(%{reason: reason, details: details}) do
    text = named(step(details) <> argument(details) <> text(reason, details), details)

    case details do
      %{node: node} when is_atom(node) ->
        if String.contains?(text, "node #{Text.word(node)}"),
          do: text,
          else: "on node #{Text.word(node)}: #{text}"

      _ ->
        text
    end
  end

  # The step of a batch.
  defp step(%{step: step}), do: "step #{step}: "
  defp step(_details), do: ""

  # The function that was called, where the text names neither it nor a kernel, which is the function for its caller.
  defp named(text, %{kernel: _} = details) when not is_map_key(details, :step), do: text
  defp named(text, %{argument: :kernel, reason: _}), do: text
  defp named(text, %{function: name}) when is_atom(name), do: prefixed(text, name)
  defp named(text, %{operation: name, argument: _}) when is_atom(name), do: prefixed(text, name)
  defp named(text, _details), do: text

  defp prefixed(text, name) do
    # A backend or a compiler is named by its module.
    name = name |> Atom.to_string() |> String.replace_prefix("Elixir.", "")
    if String.starts_with?(text, "#{name}: "), do: text, else: "#{name}: #{text}"
  end

  # The argument of a kernel.
  defp argument(%{kernel: kernel, number: number, name: name}),
    do: "argument #{number} (#{name}) of kernel #{kernel}: "

  defp argument(%{kernel: kernel, number: option}), do: "option #{option} of kernel #{kernel}: "

  # One of several buffers.
  defp argument(%{operand: name}), do: "#{name}: "
  defp argument(_details), do: ""

  # An error that was built by hand may have any reason and details.
  defp text(reason, details) do
    known =
      with %{^reason => module} <- @modules, do: module.text(reason, details), else: (_ -> nil)

    known || "#{reason}: #{Text.show(details)}"
  end
end
