defmodule ExCubecl.Error.Remedy do
  @moduledoc false
  # What to do with a term that is given in place of another: the end of a message, after what was expected; `""` for any other term.
  # Structs are known by their fields here, so that this module depends on none of them.

  alias ExCubecl.DType.Table
  alias ExCubecl.Error.Text

  # Arguments that are buffers, and those that are elements.
  @buffers [:buffer, :buffers, :view, :tensor]

  # The option that is meant by a number without a name, in the order in which they are looked for.
  @numbers [:samples, :parts, :timeout, :size, :axis]

  # The option that has a value of this name.
  @names %{
    asc: :direction,
    desc: :direction,
    reduced: :mode,
    complete: :mode,
    frobenius: :order,
    nuclear: :order,
    same: :padding,
    valid: :padding
  }

  @doc "For a term given as an argument of this name, which is `nil` for an argument of a kernel."
  @spec of(atom | nil, term) :: String.t()
  def of(_argument, {:ok, _value}),
    do:
      ": this is a result; match {:ok, value} = ..., or call the function whose name ends in ! for the value alone"

  def of(_argument, {:error, %{__exception__: true} = error}),
    do: ": this is the error of an earlier call: #{Text.shorten(Exception.message(error), 200)}"

  # Views and replicated buffers.
  def of(argument, %{buffer: _, strides: _}) when argument in [nil | @buffers],
    do: ": see ExCubecl.View.to_buffer/1"

  def of(:data, %{buffer: _, strides: _}),
    do: ": see ExCubecl.View.to_buffer/1 and ExCubecl.Buffer.copy/2"

  def of(argument, %{buffers: [_ | _], shards: _}) when argument in @buffers,
    do: ": see ExCubecl.Replicated.shard/2"

  def of(argument, %{__struct__: Nx.Tensor}) when argument in [nil, :data | @buffers],
    do: ": see ExCubecl.Nx.from_tensor/2"

  def of(argument, elements)
      when argument in [nil, :buffer, :view] and is_list(elements) and elements != [] do
    if Keyword.keyword?(elements),
      do:
        ": options stand behind all operands; for the greatest and the least element see ExCubecl.Ops.reduce_max/2 and reduce_min/2",
      else: ": see ExCubecl.buffer/1"
  end

  def of(argument, number) when argument in [:buffer, :view] and is_number(number),
    do: ": see ExCubecl.buffer/1"

  def of(argument, binary) when argument in [:buffer, :view] and is_binary(binary),
    do: ": see ExCubecl.buffer/3, which takes the bytes of elements"

  # Elixir compares terms, not elements.
  def of(nil, boolean) when is_boolean(boolean),
    do: ": see ExCubecl.Ops.greater/2, less/2 and equal/2, which compare elements"

  def of(:data, %Range{}), do: ": see Enum.to_list/1 and ExCubecl.Buffer.iota/3"

  def of(:data, tuple) when is_tuple(tuple) and is_number(elem(tuple, 0)),
    do: ": see Tuple.to_list/1"

  def of(:data, number) when is_number(number),
    do: ": see ExCubecl.Buffer.fill/2 and ExCubecl.Buffer.full/4"

  def of(:kernel, fun) when is_function(fun) do
    with {:type, :external} <- Function.info(fun, :type),
         [module, name] = for(key <- [:module, :name], do: elem(Function.info(fun, key), 1)),
         true <- function_exported?(module, :__kernel__, 2),
         do: ": did you mean {#{inspect(module)}, #{inspect(name)}}?",
         else: (_ -> "")
  end

  def of(_argument, _value), do: ""

  @doc "For a term given as options, of which these are known."
  @spec of_options(term, [atom]) :: String.t()
  def of_options(number, known) when is_integer(number) do
    case Enum.find(@numbers, &(&1 in known)) do
      nil -> ""
      option -> ": did you mean #{option}: #{Text.show(number)}?"
    end
  end

  def of_options({runtime, index} = device, known) when is_atom(runtime) and is_integer(index),
    do: if(:device in known, do: ": did you mean device: #{Text.show(device)}?", else: "")

  def of_options(source, known) when is_binary(source),
    do: if(:wgsl in known, do: ": a source is given as wgsl:", else: "")

  # As the last argument of NumPy's functions.
  def of_options(%{ref: _, dtype: _, shape: _} = buffer, known),
    do: if(:into in known, do: ": did you mean into: #{Text.show(buffer)}?", else: "")

  def of_options([axis | _] = axes, known) when is_integer(axis),
    do: if(:axes in known, do: ": did you mean axes: #{Text.show(axes)}?", else: "")

  def of_options(name, known) when is_atom(name) do
    option = if Table.valid?(name), do: :dtype, else: @names[name]
    if option in known, do: ": did you mean #{option}: #{inspect(name)}?", else: ""
  end

  def of_options(_other, _known), do: ""

  @doc "For a term given as an element type."
  @spec of_dtype(term) :: String.t()
  def of_dtype([{_, _} | _]), do: ", before the options"
  def of_dtype([_ | _]), do: ", behind the shape"
  def of_dtype(_other), do: ""

  @doc "For a term given as an element."
  @spec of_element(term) :: String.t()
  def of_element(boolean) when is_boolean(boolean), do: "; true is written 1, and false 0"

  def of_element(name) when name in [:inf, :Inf, :Infinity, :positive_infinity],
    do: "; did you mean :infinity?"

  def of_element(name) when name in [:neg_inf, :"-inf", :"-Inf", :negative_infinity],
    do: "; did you mean :neg_infinity?"

  def of_element(name) when name in [:NaN, :NAN, :Nan], do: "; did you mean :nan?"
  def of_element(%{ref: _, dtype: _, shape: _}), do: "; see ExCubecl.Ops.stack/2"

  def of_element(%{__struct__: Nx.Tensor}),
    do: "; see Nx.to_number/1 and ExCubecl.Nx.from_tensor/2"

  def of_element(_other), do: ""

  @doc "For a term given as a shape."
  @spec of_shape(term) :: String.t()
  def of_shape(length) when is_integer(length) and length >= 0,
    do: ": did you mean [#{Text.show(length)}]?"

  def of_shape(name) when is_atom(name) and name != nil,
    do: ": the shape is given before the element type"

  def of_shape(shape) do
    dimensions = if is_tuple(shape), do: Tuple.to_list(shape), else: shape

    if is_list(dimensions) and not List.improper?(dimensions) and -1 in dimensions,
      do: ": a reshape infers one dimension, -1",
      else: ""
  end
end
