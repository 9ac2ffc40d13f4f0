defmodule ExCubecl.Error.Message.Arguments do
  @moduledoc false
  # Messages about arguments and files.

  alias ExCubecl.Error.{Remedy, Text}

  def text(:invalid_argument, %{reason: :improper_list}),
    do: "the data is an improper list: expected a list that ends with []"

  def text(:invalid_argument, %{argument: :access, index: index}),
    do:
      "buffer[#{Text.show(index)}]: elements are in device memory: ExCubecl.Buffer.read_part/3 reads some, and ExCubecl.View.slice/4 takes some on the device"

  def text(:invalid_argument, %{argument: :transfer, reason: :used}),
    do: "this transfer was awaited before: a transfer has one result"

  def text(:invalid_argument, %{argument: :transfer, reason: :owner}),
    do: "this transfer belongs to another process: only the one that started it can await it"

  def text(:invalid_argument, %{
        argument: :address,
        address: address,
        bytes: bytes,
        device: device
      }),
      do:
        "#{Text.show(bytes)} bytes at address 0x#{Integer.to_string(address, 16)} are no memory that #{Text.device(device)} knows: expected the address of memory that " <>
          "CUDA allocated, with at least so many bytes"

  def text(:invalid_argument, %{argument: :buffer, offset: offset, alignment: alignment}),
    do:
      "the view starts at byte #{offset} of its storage, and elements of #{alignment} bytes start at multiples of #{alignment}: " <>
        "see ExCubecl.Buffer.duplicate/2"

  def text(:invalid_argument, %{argument: :buffer, reason: :view}),
    do: "this is a view or clone: return the buffer that was handed out"

  def text(:invalid_argument, %{argument: :device, device: device}),
    do:
      "#{Text.device(device)} is an adapter of this machine: only logical devices of ExCubecl.Device.open/2 can be removed"

  def text(:invalid_argument, %{argument: :as, reason: %{device: device, on: on}}),
    do:
      "#{Text.device(device)} cannot be another device on #{Text.device(on)}: expected an id of the same runtime that is not taken"

  def text(:invalid_argument, %{reason: %{device: device, replicated: devices}}),
    do:
      "a buffer is on #{Text.device(device)} only, and the replicated ones beside it are on #{names(devices)}: make it an ExCubecl.Replicated of the same devices"

  def text(:invalid_argument, %{reason: %{devices: devices, replicated: others}}),
    do:
      "replicated buffers have the same devices in the same order, and these are on #{names(devices)} and on #{names(others)}"

  def text(:invalid_argument, %{argument: :buffer, reason: %{device: device, on: on}} = details),
    do:
      "#{if details[:number], do: "it", else: "a buffer"} is on #{Text.device(device)}, and the kernel runs on #{Text.device(on)}: see ExCubecl.Buffer.transfer/2"

  # Errors in a source quote its names and numbers.
  def text(:invalid_argument, %{argument: :kernel, reason: reason}) when is_binary(reason),
    do: "the kernel cannot run: #{Text.shorten(reason, 1_000)}"

  def text(:invalid_argument, %{argument: :arena, reason: holds}),
    do: "the arena holds #{holds}: reset it first"

  def text(:invalid_argument, %{argument: :args, kernel: kernel, value: numbers}),
    do:
      "kernel #{kernel}: expected at least one buffer, and the arguments are numbers only: #{Text.show(numbers)}"

  def text(:invalid_argument, %{argument: :args, kernel: kernel, names: names, given: given}),
    do:
      "kernel #{kernel} takes #{Text.count(length(names), "argument")} (#{Enum.join(names, ", ")}), and is given #{given}"

  def text(:invalid_argument, %{number: _, value: value, expected: expected}),
    do: "expected #{expected}, and #{Text.show(value)} is given" <> Remedy.of(nil, value)

  def text(:invalid_argument, %{argument: argument, expected: expected, meant: meant} = details),
    do:
      "invalid #{argument} #{Text.show(details.value)}: expected #{expected}: did you mean #{meant}?"

  def text(:invalid_argument, %{argument: argument, expected: expected} = details),
    do:
      "invalid #{argument}#{if is_map_key(details, :value), do: " #{Text.show(details.value)}"}: expected #{expected}" <>
        Remedy.of(argument(details), details[:value])

  def text(:file, %{operation: operation, path: path, posix: posix}),
    do:
      "cannot #{operation} #{Text.show(path)}: #{:file.format_error(posix)} (#{Text.word(posix)})"

  def text(:invalid_file, %{path: path, format: format, problem: problem}),
    do: "#{Text.show(path)} is no valid #{format} file: #{problem}"

  def text(_reason, _details), do: nil

  # An argument that is a buffer may have another name.
  defp argument(%{expected: "an %ExCubecl.Buffer{}"}), do: :buffer
  defp argument(%{argument: argument}), do: argument

  defp names(devices), do: Enum.map_join(devices, ", ", &Text.device/1)
end
