defmodule ExCubecl.Error.Message do
  @moduledoc false
  # Builds the message of every error from its details.

  alias ExCubecl.DType.{Suggestion, Table}
  alias ExCubecl.Error.Text

  @doc "The message: what was wrong, what was expected, and what to do. An error from another node names that node."
  def of(%{reason: reason, details: details}) do
    text = step(details) <> argument(details) <> text(reason, details)

    case details do
      %{node: node} when is_atom(node) ->
        if String.contains?(text, "node #{word(node)}"),
          do: text,
          else: "on node #{word(node)}: #{text}"

      _ ->
        text
    end
  end

  # The step of a batch.
  defp step(%{step: step}), do: "step #{step}: "
  defp step(_details), do: ""

  # The argument of a kernel.
  defp argument(%{kernel: kernel, number: number, name: name}),
    do: "argument #{number} (#{name}) of kernel #{kernel}: "

  defp argument(%{kernel: kernel, number: option}), do: "option #{option} of kernel #{kernel}: "
  defp argument(%{operation: operation, argument: _}), do: "#{operation}: "
  defp argument(_details), do: ""

  defp text(:invalid_shape, %{elements: :too_many, shape: shape}),
    do: "shape #{short(shape)} has more than 2^63 - 1 elements or bytes: use smaller dimensions"

  defp text(:invalid_shape, %{axes: axes}),
    do: "the shape has #{axes} axes, and at most 64 are supported: reshape it"

  defp text(:invalid_shape, %{shape: shape}),
    do:
      "#{short(shape)} is no shape: expected a list or tuple of non-negative integers, such as [2, 3]"

  defp text(:shape_mismatch, %{ragged: index, expected: expected, actual: actual}),
    do:
      "the nested list is ragged: the row at index #{short(index)} has #{count(actual)}, and the first row at this depth has #{expected}"

  defp text(:shape_mismatch, %{ragged: index, expected: expected, value: value}),
    do:
      "the nested list is ragged: at index #{short(index)} is #{short(value)}, where the first row has #{expected}"

  defp text(:shape_mismatch, %{depth: depth, expected: expected, value: value, shape: shape}),
    do:
      "the nested list has #{short(value)} at depth #{depth}, but shape #{short(shape)} needs a row of " <>
        "#{expected} there"

  defp text(:shape_mismatch, %{depth: depth, expected: expected, actual: actual, shape: shape}),
    do:
      "the nested list has a row of #{actual} at depth #{depth}, but shape #{short(shape)} needs " <>
        "#{expected} there: each row must be as long as its dimension"

  defp text(:shape_mismatch, %{expected_bytes: expected, actual_bytes: actual}),
    do:
      "the binary has #{actual} bytes, but #{expected} were expected: elements times bytes per element"

  defp text(:shape_mismatch, %{relation: :no_axis} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)}: expected one axis or more of each; " <>
        "ExCubecl.Ops.multiply/2 takes numbers"

  defp text(:shape_mismatch, %{relation: :vector, axis: axis, length: length} = details),
    do:
      "#{details.operation}: shape #{short(details.shape)} is not that of a vector along axis #{axis} of shape #{short(details.other_shape)}: expected #{short([length])}"

  defp text(:shape_mismatch, %{axes: {axis, other}, lengths: {length, expected}} = details) do
    kind = if details.relation == :batch, do: "batch", else: "contracted"

    "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)}: axis #{axis} of the first has " <>
      "#{length} and axis #{other} of the second has #{expected}: #{kind} axes have the same length"
  end

  defp text(
         :shape_mismatch,
         %{relation: :broadcast, shape: shape, other_shape: other} = details
       ),
       do:
         "#{details.operation}: shapes #{short(shape)} and #{short(other)} cannot be broadcast: #{axis(details)}: " <>
           "expected the same length, or 1"

  defp text(
         :shape_mismatch,
         %{relation: :broadcast_to, shape: shape, other_shape: to, axis: nil} = details
       ),
       do:
         "#{details.operation}: shape #{short(shape)} does not broadcast to #{short(to)}, which has fewer axes: see ExCubecl.Buffer.reshape/2"

  defp text(
         :shape_mismatch,
         %{relation: :broadcast_to, shape: shape, other_shape: to} = details
       ),
       do:
         "#{details.operation}: shape #{short(shape)} does not broadcast to #{short(to)}: #{axis(details)}: only a length of 1 is repeated"

  defp text(:shape_mismatch, %{relation: :equal} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)} differ: expected equal shapes"

  defp text(:shape_mismatch, %{relation: :ranks} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)}: expected as many axes"

  defp text(:shape_mismatch, %{relation: :updates} = details),
    do:
      "#{details.operation}: for these indices and this target, the updates have the shape #{short(details.shape)}, and those given have #{short(details.other_shape)}"

  defp text(:shape_mismatch, %{relation: :vectors} = details),
    do:
      "#{details.operation}: shape #{short(details.shape)} has fewer axes than the vectors of indices of shape #{short(details.other_shape)}: " <>
        "the last axis of the indices has an index for each addressed axis"

  defp text(:shape_mismatch, %{relation: :channels, channels: {channels, depth, 1}} = details),
    do:
      "#{details.operation}: the input #{short(details.shape)} has #{channels} channels, and the kernel #{short(details.other_shape)} " <>
        "takes #{depth}"

  defp text(
         :shape_mismatch,
         %{relation: :channels, channels: {channels, depth, groups}} = details
       ),
       do:
         "#{details.operation}: the input #{short(details.shape)} has #{channels} channels, and the kernel #{short(details.other_shape)} " <>
           "takes #{depth} in each of #{groups} feature groups"

  defp text(:shape_mismatch, %{relation: :system} = details),
    do:
      "#{details.operation}: the matrices are of shape #{short(details.shape)}, and the right-hand sides of #{short(details.other_shape)}: " <>
        "expected the same leading axes, and then a vector or matrix as long as the matrices"

  defp text(:shape_mismatch, %{relation: :along} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)} differ elsewhere than along " <>
        "axis #{details.along}"

  defp text(:shape_mismatch, %{relation: :concatenate, axis: nil} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)} do not concatenate: expected as many axes"

  defp text(:shape_mismatch, %{relation: :concatenate} = details),
    do:
      "#{details.operation}: shapes #{short(details.shape)} and #{short(details.other_shape)} do not concatenate along axis " <>
        "#{details.along}: #{axis(details)}: expected the same length"

  defp text(:shape_mismatch, %{operation: :reshape, multiple: known} = details),
    do:
      "shape #{short(details.shape)} has a multiple of #{count(known)}, and the buffer has #{details.actual}: no dimension in place of -1 fits"

  defp text(:shape_mismatch, %{operation: :reshape, expected: expected} = details),
    do:
      "shape #{short(details.shape)} has #{count(expected)}, and the buffer has #{details.actual}: a reshape keeps them all"

  defp text(:shape_mismatch, %{operation: :bitcast, shape: []} = details),
    do:
      "bitcast: a scalar of #{details.from} bytes is no #{details.dtype}, which has #{details.to}: see ExCubecl.Buffer.reshape/2"

  defp text(:shape_mismatch, %{operation: :bitcast} = details),
    do:
      "bitcast: the last axis of shape #{short(details.shape)} has elements of #{details.from} bytes, which are no whole number " <>
        "of elements of #{details.dtype}, of #{details.to} bytes"

  defp text(:shape_mismatch, %{operation: :item, actual: actual}),
    do: "item takes a buffer of exactly 1 element, and this one has #{actual}: see to_list/1"

  defp text(:shape_mismatch, %{operation: :copy, expected: expected, actual: actual}),
    do:
      "copy takes as many elements as the target has, which are #{expected}, and the source has #{actual}"

  defp text(:shape_mismatch, %{other: nil, shape: shape, other_shape: expected}),
    do: "its shape is #{short(shape)}, and that of the result is #{short(expected)}"

  defp text(:shape_mismatch, %{other: other, shape: shape, other_shape: expected}),
    do:
      "its shape is #{short(shape)}, and that of argument #{other.number} (#{other.name}) is #{short(expected)}: " <>
        "an element-wise kernel takes buffers of one shape, or of one element; ExCubecl.Ops.broadcast_to/2 repeats"

  defp text(:shape_mismatch, %{expected: expected, actual: actual, shape: shape}),
    do: "shape #{short(shape)} needs #{count(expected)}, but the data has #{actual}"

  defp text(:shape_mismatch, %{expected: expected, actual: actual}),
    do: "expected #{count(expected)}, but there are #{actual}"

  defp text(:invalid_value, %{number: _, value: value, dtype: dtype}),
    do: "#{dtype} cannot hold #{short(value)}: expected #{Table.range(dtype)}"

  defp text(:invalid_value, %{index: index, value: value, dtype: dtype}),
    do:
      "element #{index} is #{short(value)}, which #{dtype} cannot hold: expected #{Table.range(dtype)}"

  defp text(:unsupported_dtype, %{
         dtype: dtype,
         supported: supported,
         device: device,
         atomic: true
       }),
       do:
         "#{name(device)} has no atomic operations on #{dtype}: use one of #{Enum.map_join(supported, " ", &inspect/1)}"

  defp text(:unsupported_dtype, %{dtype: dtype, supported: supported, device: device}),
    do:
      "#{name(device)} cannot calculate with #{dtype}: convert to one of #{Enum.map_join(supported, " ", &inspect/1)}"

  defp text(:unsupported_dtype, %{argument: argument, expected: expected}),
    do: "no #{argument} is given: expected #{expected}"

  defp text(:unsupported_dtype, %{dtype: dtype}),
    do: "#{short(dtype)} is no element type: #{Suggestion.text(dtype, "expected")}"

  defp text(:loop_limit, %{device: device}),
    do:
      "the driver of #{name(device)} stopped a loop after 65,535 iterations of one invocation, so that the outputs of the kernel " <>
        "are wrong: use more invocations with fewer iterations each, or several calls"

  defp text(:type_mismatch, %{kernel: kernel, text: text, line: line}),
    do: "kernel #{kernel}, line #{line}: #{text}"

  defp text(:type_mismatch, %{kernel: kernel, text: text}), do: "kernel #{kernel}: #{text}"

  defp text(:type_mismatch, %{argument: argument, expected: expected, actual: actual}),
    do:
      "#{argument} are of integers, such as #{expected}, and these are #{actual}: see ExCubecl.Buffer.convert/2"

  defp text(:type_mismatch, %{expected: expected, actual: actual}),
    do:
      "expected elements of type #{expected}, but they are #{actual}: see ExCubecl.Buffer.convert/2"

  defp text(:out_of_bounds, %{kernel: kernel, argument: name, index: index} = details),
    do:
      "kernel #{kernel} reads or writes #{name}[#{index}] at position #{details.position}, outside of its " <>
        "#{count(details.size)}: compare the index with len(#{name})"

  defp text(:out_of_bounds, %{operation: operation, index: index, axis: axis} = details),
    do:
      "#{operation}: index #{index} at position #{short(details.position)} of the indices is outside of axis #{axis}, which has #{count(details.size)}"

  defp text(:out_of_bounds, %{operation: operation, axis: axis} = details),
    do:
      "#{operation}: #{details.count} from #{details.offset} on are outside of axis #{axis}, which has #{count(details.size)}"

  defp text(:out_of_bounds, %{offset: offset, count: count, size: size}),
    do:
      "#{count} from offset #{offset} on lie outside of a buffer of #{size}: offset + count must be at most #{size}"

  defp text(:overlap, %{other: other}),
    do:
      "it is written to and shares bytes with argument #{other.number} (#{other.name}): write into a buffer or view " <>
        "that does not overlap, or ExCubecl.Buffer.duplicate/1 the other first"

  defp text(:overlap, _),
    do:
      "source and target share bytes: copy into a buffer or view that does not overlap, or duplicate/1 the source first"

  defp text(:not_allocated, _),
    do: "nothing was ever written to this buffer: write, fill or copy into it before reading"

  defp text(:too_large, %{requested: requested, limit: limit, device: device}),
    do:
      "#{bytes(requested)} are more than #{name(device)} takes in one buffer (#{bytes(limit)}): " <>
        "use several smaller buffers"

  defp text(:too_large, %{requested: requested, limit: limit}),
    do:
      "a list of #{requested} rows is more than the #{limit} that to_list makes: read the binary instead"

  defp text(:out_of_memory, %{requested: requested, available: available, device: device} = more),
    do:
      "#{name(device)} has no room for #{bytes(requested)}#{available && " (#{bytes(available)} are free)"}" <>
        "#{owners(more)}: drop buffers that are no longer needed, or see ExCubecl.Memory"

  defp text(:limit_exceeded, %{devices: max}),
    do: "there are #{max} logical devices already: remove one with ExCubecl.Device.remove/1 first"

  defp text(:limit_exceeded, %{requested: requested, used: used, capacity: capacity}),
    do:
      "#{bytes(requested)} more do not fit into the arena of #{bytes(capacity)}, of which #{bytes(used)} are used: " <>
        "drop tensors, or make it larger or extendable"

  defp text(:limit_exceeded, %{requested: requested, live: live, limit: limit} = details),
    do:
      "#{bytes(requested)} more would exceed the limit of #{bytes(limit)} on #{name(details.device)}, where " <>
        "#{bytes(live)} are live#{owners(details)}: drop buffers, or raise it with ExCubecl.Memory.set_limit/2"

  defp text(:pool_exhausted, %{max: max} = details),
    do:
      "all #{max} of the pool are held#{if details[:timeout], do: ", and none was returned within #{details.timeout} ms"}: " <>
        "return one, wait longer, or raise max"

  defp text(:stale, %{reason: :foreign}),
    do: "it belongs to another pool or arena: return it there"

  defp text(:stale, %{reason: :closed}),
    do: "there is no such pool: it was not started, or it has stopped"

  defp text(:stale, %{tensor: :other_node, node: node}),
    do:
      "the tensor is in device memory of the node #{node}, which sent only a reference to it: Nx.backend_copy/1 makes a copy in host memory " <>
        "that can be sent, and Nx.Serving takes that function for the input and the results of other nodes"

  defp text(:stale, %{node: node}),
    do:
      "node #{word(node)} does not keep it: it was returned, the connection was lost, or the handle came from another node"

  defp text(:stale, %{tensor: :deallocated}),
    do: "the tensor was deallocated, by Nx.backend_deallocate/1 or Nx.backend_transfer/2"

  defp text(:stale, _),
    do: "it was returned to its pool or arena: get a new one there"

  defp text(:no_device, details),
    do:
      "there is no device on this machine: #{details[:reason] || "no driver was found"}. Any machine can run on " <>
        "its CPU with Mesa's lavapipe, on Debian: apt-get install libvulkan1 mesa-vulkan-drivers"

  defp text(:unknown_device, %{device: device, known: known} = details),
    do:
      "there is no device #{name(device)}#{source(details)}: this machine has #{Enum.map_join(known, ", ", &name/1)}"

  defp text(:device_in_use, %{device: device, live_buffers: 1}),
    do:
      "one buffer lives on #{name(device)}: drop it first, or discard it with ExCubecl.Device.reset/1"

  defp text(:device_in_use, %{device: device, live_buffers: buffers}),
    do:
      "#{buffers} buffers live on #{name(device)}: drop them first, or discard them with ExCubecl.Device.reset/1"

  defp text(:device_lost, %{device: device}),
    do:
      "#{name(device)} was reset or lost, and the buffer with it: create it again; the device is reopened at its next use"

  defp text(:node_down, %{node: node}),
    do:
      "node #{word(node)} cannot be reached: connect it with Node.connect/1; what it held is gone if it has ended"

  defp text(:unsupported, %{operation: :no_library, node: node}),
    do:
      "node #{word(node)} has no ExCubecl: add it to what runs there, in the version of this node"

  defp text(:unsupported, %{operation: {:version, version}, node: node}),
    do: "node #{word(node)} has version #{version} of ExCubecl: both nodes need the same"

  defp text(:unsupported, %{operation: :file, path: path, what: what}),
    do: "#{short(path)} has what is not read: #{what}"

  defp text(:unsupported, %{operation: :remote_buffer, device: device}),
    do:
      "the buffer is on #{name(device)}, and this call takes buffers of its own node only: create it there, or transfer " <>
        "the buffer here with ExCubecl.Buffer.transfer/2"

  defp text(:unsupported, %{operation: :remote_device, device: device}),
    do:
      "#{name(device)} cannot be used from here: buffers of ExCubecl.Buffer, and queries of ExCubecl.Device and " <>
        "ExCubecl.Memory, are all that goes to another node"

  defp text(:unsupported, %{operation: operation, type: type, device: device}),
    do:
      "#{name(device)} cannot run #{operation} with #{type}, and fallback: :raise forbids the host to run it: " <>
        "use fallback: :host, or another type"

  defp text(:unsupported, %{operation: operation, device: device}),
    do: "#{name(device)} cannot do this: #{operation}"

  defp text(:invalid_argument, %{reason: :improper_list}),
    do: "the data is an improper list: expected a list that ends with []"

  defp text(:invalid_argument, %{argument: :transfer, reason: :used}),
    do: "this transfer was awaited before: a transfer has one result"

  defp text(:invalid_argument, %{argument: :transfer, reason: :owner}),
    do: "this transfer belongs to another process: only the one that started it can await it"

  defp text(:invalid_argument, %{argument: :buffer, offset: offset, alignment: alignment}),
    do:
      "the view starts at byte #{offset} of its storage, and elements of #{alignment} bytes start at multiples of #{alignment}: " <>
        "see ExCubecl.Buffer.duplicate/2"

  defp text(:invalid_argument, %{argument: :buffer, reason: :view}),
    do: "this is a view or clone: return the buffer that was handed out"

  defp text(:invalid_argument, %{argument: :device, device: device}),
    do:
      "#{name(device)} is an adapter of this machine: only logical devices of ExCubecl.Device.open/2 can be removed"

  defp text(:invalid_argument, %{argument: :as, reason: %{device: device, on: on}}),
    do:
      "#{name(device)} cannot be another device on #{name(on)}: expected an id of the same runtime that is not taken"

  defp text(:invalid_argument, %{argument: :buffer, reason: %{device: device, on: on}} = details),
    do:
      "#{if details[:number], do: "it", else: "a buffer"} is on #{name(device)}, and the kernel runs on #{name(on)}: see ExCubecl.Buffer.transfer/2"

  defp text(:invalid_argument, %{argument: :kernel, reason: reason}) when is_binary(reason),
    do: "the kernel cannot run: #{reason}"

  defp text(:invalid_argument, %{argument: :arena, reason: holds}),
    do: "the arena holds #{holds}: reset it first"

  defp text(:invalid_argument, %{argument: :args, kernel: kernel, value: numbers}),
    do:
      "kernel #{kernel}: expected at least one buffer, and the arguments are numbers only: #{short(numbers)}"

  defp text(:invalid_argument, %{argument: :args, kernel: kernel, names: names, given: given}),
    do:
      "kernel #{kernel} takes #{Text.count(length(names), "argument")} (#{Enum.join(names, ", ")}), and is given #{given}"

  defp text(:invalid_argument, %{number: _, value: value, expected: expected}),
    do: "expected #{expected}, and #{short(value)} is given"

  defp text(:invalid_argument, %{argument: argument, expected: expected} = details),
    do:
      "invalid #{argument}#{if is_map_key(details, :value), do: " #{short(details.value)}"}: expected #{expected}"

  defp text(:file, %{operation: operation, path: path, posix: posix}),
    do: "cannot #{operation} #{short(path)}: #{:file.format_error(posix)} (#{word(posix)})"

  defp text(:invalid_file, %{path: path, format: format, problem: problem}),
    do: "#{short(path)} is no valid #{format} file: #{problem}"

  defp text(:timeout, %{timeout: timeout}),
    do:
      "no result arrived within #{timeout} ms: the result is discarded when it arrives; use a longer timeout"

  defp text(:busy, _), do: "the device is busy: try again later"
  defp text(:driver, %{message: message}), do: "the driver failed: #{message}"

  defp text(:nif_not_loaded, %{path: path, load_error: text}),
    do:
      "the native library #{path} could not be loaded (#{text}): build it with `mix compile`, or let " <>
        "EX_CUBECL_NIF point to a built one"

  defp text(reason, details), do: "#{reason}: #{short(details)}"

  defp source(%{source: source}), do: ", which #{source} names"
  defp source(_details), do: ""

  defp owners(%{owners: [_ | _] = owners}),
    do:
      " (most by #{Enum.map_join(owners, ", ", fn {pid, n} -> "#{inspect(pid)}: #{bytes(n)}" end)})"

  defp owners(_), do: ""

  defp axis(%{axis: axis, lengths: {one, other}}), do: "axis #{axis} has #{one} and #{other}"

  defp short(term), do: Text.show(term)

  defp name({runtime, index}) when is_atom(runtime) and is_integer(index),
    do: "#{word(runtime)}:#{short(index)}"

  defp name({node, {_, _} = id}) when is_atom(node), do: "#{name(id)} of node #{word(node)}"

  defp name({node, id}) when is_atom(node) and is_binary(id),
    do: "#{word(id)} of node #{word(node)}"

  defp name(other), do: short(other)

  # Unquoted if it consists only of word characters and . : @ -
  defp word(atom) when is_atom(atom), do: atom |> Atom.to_string() |> word()

  defp word(text),
    do: if(text =~ ~r/\A[\w.:@-]{1,255}\z/u, do: text, else: short(text))

  defp count(n), do: Text.count(n, "element")

  defp bytes(n) when n >= 1_048_576, do: "#{n} bytes (#{Float.round(n / 1_048_576, 1)} MiB)"
  defp bytes(n), do: "#{n} bytes"
end
