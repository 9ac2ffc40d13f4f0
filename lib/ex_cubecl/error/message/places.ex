defmodule ExCubecl.Error.Message.Places do
  @moduledoc false
  # Messages about devices, nodes and the native library.

  alias ExCubecl.Error.Text

  def text(:no_device, details),
    do:
      "there is no device on this machine: #{details[:reason] || "no driver was found"}. Any machine can run on " <>
        "its CPU with Mesa's lavapipe, on Debian: apt-get install libvulkan1 mesa-vulkan-drivers"

  def text(:unknown_device, %{device: device, known: known} = details),
    do:
      "there is no device #{Text.device(device)}#{source(details)}: this machine has #{Enum.map_join(known, ", ", &Text.device/1)}" <>
        form(device, known)

  def text(:device_in_use, %{device: device, live_buffers: 1}),
    do:
      "one buffer lives on #{Text.device(device)}: drop it first, or discard it with ExCubecl.Device.reset/1"

  def text(:device_in_use, %{device: device, live_buffers: buffers}),
    do:
      "#{buffers} buffers live on #{Text.device(device)}: drop them first, or discard them with ExCubecl.Device.reset/1"

  def text(:device_lost, %{device: device}),
    do:
      "#{Text.device(device)} was reset or lost, and the buffer with it: create it again; the device is reopened at its next use"

  def text(:node_down, %{node: node}),
    do:
      "node #{Text.word(node)} cannot be reached: connect it with Node.connect/1; what it held is gone if it has ended"

  def text(:unsupported, %{operation: :no_library, node: node}),
    do:
      "node #{Text.word(node)} has no ExCubecl: add it to what runs there, in the version of this node"

  def text(:unsupported, %{operation: {:version, version}, node: node}),
    do: "node #{Text.word(node)} has version #{version} of ExCubecl: both nodes need the same"

  def text(:unsupported, %{operation: :file, path: path, what: what}),
    do: "#{Text.show(path)} has what is not read: #{what}"

  def text(:unsupported, %{operation: :remote_buffer, device: device}),
    do:
      "the buffer is on #{Text.device(device)}, and this call takes buffers of its own node only: create it there, or transfer " <>
        "the buffer here with ExCubecl.Buffer.transfer/2"

  def text(:unsupported, %{operation: :remote_device, device: device}),
    do:
      "#{Text.device(device)} cannot be used from here: buffers of ExCubecl.Buffer, and queries of ExCubecl.Device and " <>
        "ExCubecl.Memory, are all that goes to another node"

  def text(:unsupported, %{operation: operation, type: type, device: device}),
    do:
      "#{Text.device(device)} cannot run #{operation} with #{type}, and fallback: :raise forbids the host to run it: " <>
        "use fallback: :host, or another type"

  def text(:unsupported, %{operation: :to_pointer, elements: where}),
    do:
      "the elements of the tensor #{where}, and have no address: copy them to a buffer with ExCubecl.Nx.from_tensor/1, which has the " <>
        "address of ExCubecl.Buffer.pointer/1"

  def text(:unsupported, %{operation: operation, device: device})
      when operation in ["pointer", "copy_from_pointer"],
      do:
        "memory of #{Text.device(device)} has no addresses for other libraries, only that of CUDA has: copy over the host, with " <>
          "ExCubecl.Buffer.read/1 and write/2"

  def text(:unsupported, %{operation: operation, device: device}),
    do: "#{Text.device(device)} does not support #{operation}"

  def text(:timeout, %{timeout: timeout}),
    do:
      "no result arrived within #{timeout} ms: the result is discarded when it arrives; use a longer timeout"

  def text(:busy, _), do: "the device is busy: try again later"

  def text(:driver, %{message: message}), do: "the driver failed: #{message}"

  def text(:nif_not_loaded, %{path: path, load_error: text}),
    do:
      "the native library #{path} could not be loaded (#{text}): build it with `mix compile`, or let " <>
        "EX_CUBECL_NIF point to a built one"

  def text(_reason, _details), do: nil

  # A term that is no id.
  defp form({_, _}, _known), do: ""

  defp form(device, known) do
    id = List.first(known) || {:vulkan, 0}

    if is_binary(device) and device =~ ~r/\A\w+:\d+\z/,
      do: "",
      else: ", and an id is written as #{Text.show(id)} or \"#{Text.device(id)}\""
  end

  defp source(%{source: source}), do: ", which #{source} names"
  defp source(_details), do: ""
end
