defmodule ExCubecl.Error.Message.Shapes do
  @moduledoc false
  # Messages about shapes.

  alias ExCubecl.Error.{Remedy, Text}

  def text(:invalid_shape, %{elements: :too_many, shape: shape}),
    do:
      "shape #{Text.show(shape)} has more than 2^63 - 1 elements or bytes: use smaller dimensions"

  def text(:invalid_shape, %{axes: axes}),
    do: "the shape has #{axes} axes, and at most 64 are supported: reshape it"

  def text(:invalid_shape, %{shape: shape}),
    do:
      "#{Text.show(shape)} is no shape: expected a list or tuple of non-negative integers, such as [2, 3]" <>
        Remedy.of_shape(shape)

  def text(:shape_mismatch, %{ragged: index, expected: expected, actual: actual}),
    do:
      "the data is ragged: the row at index #{Text.show(index)} has #{Text.count(actual)}, and the first row at this depth has #{expected}"

  def text(:shape_mismatch, %{ragged: index, expected: expected, value: value}),
    do:
      "the data is ragged: at index #{Text.show(index)} is #{Text.show(value)}, where the first row has #{expected}"

  def text(:shape_mismatch, %{depth: depth, expected: expected, value: value, shape: shape}),
    do:
      "the data has #{Text.show(value)} at depth #{depth}, but shape #{Text.show(shape)} needs a row of " <>
        "#{expected} there"

  def text(:shape_mismatch, %{depth: depth, expected: expected, actual: actual, shape: shape}),
    do:
      "the data has a row of #{actual} at depth #{depth}, but shape #{Text.show(shape)} needs " <>
        "#{expected} there: each row must be as long as its dimension"

  def text(:shape_mismatch, %{expected_bytes: expected, actual_bytes: actual} = details),
    do:
      "the data is a binary of #{actual} bytes, and #{expected} were expected: elements times bytes per element" <>
        part(details)

  def text(:shape_mismatch, %{relation: :no_axis} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)}: expected one axis or more of each; " <>
        "ExCubecl.Ops.multiply/2 takes numbers"

  def text(:shape_mismatch, %{relation: :vector, axis: axis, length: length} = details),
    do:
      "#{details.operation}: shape #{Text.show(details.shape)} is not that of a vector along axis #{axis} of shape #{Text.show(details.other_shape)}: expected #{Text.show([length])}"

  def text(:shape_mismatch, %{axes: {axis, other}, lengths: {length, expected}} = details) do
    kind = if details.relation == :batch, do: "batch", else: "contracted"

    "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)}: axis #{axis} of the first has " <>
      "#{length} and axis #{other} of the second has #{expected}: #{kind} axes have the same length"
  end

  def text(
        :shape_mismatch,
        %{relation: :broadcast, shape: shape, other_shape: other} = details
      ),
      do:
        "#{details.operation}: shapes #{Text.show(shape)} and #{Text.show(other)} cannot be broadcast: #{axis(details)}: " <>
          "expected the same length, or 1"

  def text(
        :shape_mismatch,
        %{relation: :broadcast_to, shape: shape, other_shape: to, axis: nil} = details
      ),
      do:
        "#{details.operation}: shape #{Text.show(shape)} does not broadcast to #{Text.show(to)}, which has fewer axes: see ExCubecl.Buffer.reshape/2"

  def text(
        :shape_mismatch,
        %{relation: :broadcast_to, shape: shape, other_shape: to} = details
      ),
      do:
        "#{details.operation}: shape #{Text.show(shape)} does not broadcast to #{Text.show(to)}: #{axis(details)}: only a length of 1 is repeated"

  def text(:shape_mismatch, %{relation: :equal} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)} differ: expected equal shapes"

  def text(:shape_mismatch, %{relation: :ranks} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)}: expected as many axes"

  def text(:shape_mismatch, %{relation: :updates} = details),
    do:
      "#{details.operation}: for these indices and this target, the updates have the shape #{Text.show(details.shape)}, and those given have #{Text.show(details.other_shape)}"

  def text(:shape_mismatch, %{relation: :probabilities} = details),
    do:
      "#{details.operation}: the probabilities are of shape #{Text.show(details.shape)}: expected #{Text.show(details.other_shape)}, one for each slice"

  def text(:shape_mismatch, %{relation: :vectors} = details),
    do:
      "#{details.operation}: shape #{Text.show(details.shape)} has fewer axes than the vectors of indices of shape #{Text.show(details.other_shape)}: " <>
        "the last axis of the indices has an index for each addressed axis"

  def text(:shape_mismatch, %{relation: :channels, channels: {channels, depth, 1}} = details),
    do:
      "#{details.operation}: the input #{Text.show(details.shape)} has #{channels} channels, and the kernel #{Text.show(details.other_shape)} " <>
        "takes #{depth}"

  def text(
        :shape_mismatch,
        %{relation: :channels, channels: {channels, depth, groups}} = details
      ),
      do:
        "#{details.operation}: the input #{Text.show(details.shape)} has #{channels} channels, and the kernel #{Text.show(details.other_shape)} " <>
          "takes #{depth} in each of #{groups} feature groups"

  def text(:shape_mismatch, %{relation: :system} = details),
    do:
      "#{details.operation}: the matrices are of shape #{Text.show(details.shape)}, and the right-hand sides of #{Text.show(details.other_shape)}: " <>
        "expected the same leading axes, and then a vector or matrix as long as the matrices"

  def text(:shape_mismatch, %{relation: :along} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)} differ elsewhere than along " <>
        "axis #{details.along}"

  def text(:shape_mismatch, %{relation: :concatenate, axis: nil} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)} do not concatenate: expected as many axes"

  def text(:shape_mismatch, %{relation: :concatenate} = details),
    do:
      "#{details.operation}: shapes #{Text.show(details.shape)} and #{Text.show(details.other_shape)} do not concatenate along axis " <>
        "#{details.along}: #{axis(details)}: expected the same length"

  def text(:shape_mismatch, %{operation: :reshape, multiple: known} = details),
    do:
      "shape #{Text.show(details.shape)} has a multiple of #{Text.count(known)}, and the buffer has #{details.actual}: no dimension in place of -1 fits"

  def text(:shape_mismatch, %{operation: :reshape, expected: expected} = details),
    do:
      "shape #{Text.show(details.shape)} has #{Text.count(expected)}, and the buffer has #{details.actual}: a reshape keeps them all"

  def text(:shape_mismatch, %{operation: :bitcast, shape: []} = details),
    do:
      "bitcast: a scalar of #{details.from} bytes is no #{details.dtype}, which has #{details.to}: see ExCubecl.Buffer.reshape/2"

  def text(:shape_mismatch, %{operation: :bitcast} = details),
    do:
      "bitcast: the last axis of shape #{Text.show(details.shape)} has elements of #{Text.count(details.from, "byte")}, which are no whole number " <>
        "of elements of #{details.dtype}, of #{Text.count(details.to, "byte")}"

  def text(:shape_mismatch, %{operation: :item, actual: actual}),
    do: "item: expected a buffer of exactly 1 element, and this one has #{actual}: see to_list/1"

  def text(:shape_mismatch, %{operation: :copy, expected: expected, actual: actual}),
    do:
      "copy: expected as many elements as the target has, which are #{expected}, and the source has #{actual}"

  def text(:shape_mismatch, %{other: nil, shape: shape, other_shape: expected}),
    do: "its shape is #{Text.show(shape)}, and that of the result is #{Text.show(expected)}"

  def text(:shape_mismatch, %{other: other, shape: shape, other_shape: expected}),
    do:
      "its shape is #{Text.show(shape)}, and that of argument #{other.number} (#{other.name}) is #{Text.show(expected)}: " <>
        "an element-wise kernel takes buffers of one shape, or of one element; ExCubecl.Ops.broadcast_to/2 repeats"

  def text(:shape_mismatch, %{expected: expected, actual: actual, shape: shape} = details),
    do:
      "shape #{Text.show(shape)} needs #{Text.count(expected)}, but the data has #{actual}" <>
        part(details)

  def text(:shape_mismatch, %{expected: expected, actual: actual}),
    do: "expected #{Text.count(expected)}, but there are #{actual}"

  def text(_reason, _details), do: nil

  defp part(%{option: :offset}), do: ": the option offset: writes a part"
  defp part(_details), do: ""

  defp axis(%{axis: axis, lengths: {one, other}}), do: "axis #{axis} has #{one} and #{other}"
end
