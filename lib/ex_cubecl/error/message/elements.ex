defmodule ExCubecl.Error.Message.Elements do
  @moduledoc false
  # Messages about elements, their types and their positions.

  alias ExCubecl.DType.{Suggestion, Table}
  alias ExCubecl.Error.{Remedy, Text}

  def text(:invalid_value, %{number: _, value: value, dtype: dtype}),
    do:
      "#{dtype} cannot hold #{Text.show(value)}: expected #{Table.range(dtype)}" <>
        Remedy.of_element(value)

  def text(:invalid_value, %{index: index, value: value, dtype: dtype}),
    do:
      "element #{index} of the data is #{Text.show(value)}, which #{dtype} cannot hold: expected #{Table.range(dtype)}" <>
        Remedy.of_element(value) <> wider(dtype, value)

  def text(:invalid_value, %{value: value, dtype: dtype}),
    do:
      "the value is #{Text.show(value)}, which #{dtype} cannot hold: expected #{Table.range(dtype)}" <>
        Remedy.of_element(value)

  def text(:unsupported_dtype, %{
        dtype: dtype,
        supported: supported,
        device: device,
        atomic: true
      }),
      do:
        "#{Text.device(device)} has no atomic operations on #{dtype}: use one of #{Enum.map_join(supported, " ", &inspect/1)}"

  def text(:unsupported_dtype, %{dtype: dtype, supported: supported, device: device}),
    do:
      "#{Text.device(device)} cannot calculate with #{dtype}: convert to one of #{Enum.map_join(supported, " ", &inspect/1)}"

  def text(:unsupported_dtype, %{argument: argument, expected: expected}),
    do: "no #{argument} is given: expected #{expected}"

  def text(:unsupported_dtype, %{dtype: dtype}),
    do:
      "#{Text.show(dtype)} is no element type: #{Suggestion.text(dtype, "expected")}" <>
        Remedy.of_dtype(dtype)

  def text(:loop_limit, %{device: device}),
    do:
      "the driver of #{Text.device(device)} stopped a loop after 65,535 iterations of one invocation, so that the outputs of the kernel " <>
        "are wrong: use more invocations with fewer iterations each, or several calls"

  def text(:type_mismatch, %{kernel: kernel, text: text, line: line}),
    do: "kernel #{kernel}, line #{line}: #{text}"

  def text(:type_mismatch, %{kernel: kernel, text: text}) do
    outside =
      if text =~ "use cast(",
        do: " in a kernel, or ExCubecl.Buffer.convert/2 before the call",
        else: ""

    "kernel #{kernel}: #{text}#{outside}"
  end

  def text(:type_mismatch, %{argument: :indices, expected: expected, actual: actual}),
    do:
      "indices are of integers, such as #{expected}, and these are #{actual}: see ExCubecl.Buffer.convert/2"

  def text(:type_mismatch, %{expected: expected, actual: actual}),
    do:
      "expected elements of type #{expected}, but they are #{actual}: see ExCubecl.Buffer.convert/2"

  def text(:out_of_bounds, %{kernel: kernel, argument: name, index: index} = details),
    do:
      "kernel #{kernel} reads or writes #{name}[#{index}] at position #{details.position}, outside of its " <>
        "#{Text.count(details.size)}: compare the index with len(#{name})"

  def text(:out_of_bounds, %{operation: operation, index: index, axis: axis} = details),
    do:
      "#{operation}: index #{index} at position #{Text.show(details.position)} of the indices is outside of axis #{axis}, which has #{Text.count(details.size)}"

  def text(:out_of_bounds, %{operation: operation, axis: axis} = details),
    do:
      "#{operation}: a range of #{Text.show(details.count)} from #{Text.show(details.offset)} on is not inside of axis #{axis}, which has #{Text.count(details.size)}"

  def text(:out_of_bounds, %{unit: "device", offset: index, size: size}),
    do: "there is no device #{index} in the device list, which has #{size}, from 0 to #{size - 1}"

  def text(:out_of_bounds, %{offset: offset, count: count, size: size} = details) do
    range = Text.count(count, details[:unit] || "element")

    "a range of #{range} from offset #{Text.show(offset)} on is not inside of the buffer, which has #{size}: offset + count must be at most #{size}"
  end

  def text(:overlap, %{other: other}),
    do:
      "it is written to and shares bytes with argument #{other.number} (#{other.name}): write into a buffer or view " <>
        "that does not overlap, or ExCubecl.Buffer.duplicate/1 the other first"

  def text(:overlap, _),
    do:
      "source and target share bytes: copy into a buffer or view that does not overlap, or duplicate/1 the source first"

  def text(:not_allocated, _),
    do: "nothing was ever written to this buffer: write, fill or copy into it before reading"

  def text(_reason, _details), do: nil

  # The type of integers for which the caller gave none.
  defp wider(:s32, value) when value in -0x8000000000000000..0x7FFFFFFFFFFFFFFF,
    do: "; :s64 holds it"

  defp wider(_dtype, _value), do: ""
end
