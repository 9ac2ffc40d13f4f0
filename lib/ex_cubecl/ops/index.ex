defmodule ExCubecl.Ops.Index do
  @moduledoc false
  # The index arithmetic of strided kernels, in the intermediate form of `ExCubecl.Kernel.Parser`. Lengths, strides and offsets are
  # arguments of a launch, so that one kernel serves every shape; only the number of joined axes, and which strides are 0, are part of it.
  #
  # The arithmetic is that of :u32, which has the cheapest division. A negative stride is added modulo 2^32.

  @modulus 0x1_0000_0000

  @marks ["_" | Enum.map(0..9, &Integer.to_string/1)]

  # Arguments and variables: at most 31 joined axes have two or more elements each.
  @axes 0..31

  @kinds [length: "n", at: "i", rest: "q", factor: "f", shift: "h"]

  # The prefixes of the groups of axes that one kernel has. The last two are those of the rows and columns of a product.
  @groups [kept: "", reduced: "r", rows: "m", columns: "n"]

  for axis <- @axes,
      {kind, letters} <- @kinds,
      {group, prefix} <- @groups do
    defp name(unquote(kind), unquote(group), unquote(axis)),
      do: unquote(:"#{prefix}#{letters}#{axis}")
  end

  # A group `{:part, number}` is that of one of several shapes in a kernel.
  defp name(kind, {:part, number}, axis), do: :"part#{number}_#{@kinds[kind]}#{axis}"

  @doc "Whether a name may be one of those that this module makes, or `i`, the linear index: all others have a digit or an underscore."
  def variable?(name),
    do: name == :i or String.contains?(Atom.to_string(name), @marks)

  @doc "The variable with the coordinate along an axis."
  def at(group, axis), do: name(:at, group, axis)

  @doc "The argument with the length of an axis."
  def length(group, axis), do: name(:length, group, axis)

  @doc "The argument or variable of an operand: its offset, or its stride along an axis of a group of axes."
  def name(operand, what), do: :"#{operand}_#{what}"

  @doc "The variable with an element of an operand that is read by vectors."
  def lane(operand, lane), do: name(operand, "v#{lane}")

  @doc "The pattern of strides, which is part of a kernel."
  def pattern(strides), do: Enum.map(strides, &if(&1 == 0, do: 0, else: 1))

  @doc "The axes that at least one of several patterns uses."
  def used(patterns) do
    for {column, axis} <- patterns |> Enum.zip() |> Enum.with_index(),
        1 in Tuple.to_list(column),
        do: axis
  end

  def var(name), do: {:var, name}
  def number(n), do: {:number, n}
  def call(function, a, b), do: {:call, 0, function, [a, b]}
  def let(name, value), do: {:let, 0, name, value}
  def unsigned(value), do: {:cast, :u32, value}

  @doc """
  Statements that set the coordinates of a linear index, a variable, along the axes `used` of `rank` axes. `group` tells the axes of two
  index spaces in one kernel apart. With the division `:factors`, the arguments of `factors/3` are needed too.
  """
  def coordinates(linear, rank, used, group, division \\ :div)
  def coordinates(_linear, _rank, [], _group, _division), do: []

  def coordinates(linear, rank, used, group, division),
    do: coordinate(rank - 1, linear, used, Enum.min(used), group, division)

  defp coordinate(0, linear, _used, _last, group, _division),
    do: [let(name(:at, group, 0), var(linear))]

  defp coordinate(axis, linear, used, last, group, division) do
    [length, rest] = [var(name(:length, group, axis)), name(:rest, group, axis)]
    quotient = let(rest, quotient(var(linear), axis, group, division))
    within = call(:sub, var(linear), call(:mul, var(rest), length))
    at = if axis in used, do: [let(name(:at, group, axis), within)], else: []
    more = if axis > last, do: coordinate(axis - 1, rest, used, last, group, division), else: []
    [quotient | at] ++ more
  end

  defp quotient(linear, axis, group, :div),
    do: call(:div, linear, var(name(:length, group, axis)))

  # A product takes a CPU, which has no division of several integers at once, a tenth of the time of the divisions.
  defp quotient(linear, axis, group, :factors) do
    product = call(:mul, {:cast, :u64, linear}, var(name(:factor, group, axis)))
    unsigned(call(:shr, product, var(name(:shift, group, axis))))
  end

  @doc """
  The arguments with which `coordinates/5` divides indices below 2^31 by the lengths: with l = ceil(log2(n)), the quotient by n is
  the product with floor(2^(31 + l) / n) + 1, shifted right by 31 + l bits.
  """
  def factors(lengths, used, group) do
    first = max(Enum.min(used), 1)

    for {length, axis} <- Enum.with_index(lengths), axis >= first, length > 0 do
      shift = 31 + bits(length - 1)

      [
        {name(:factor, group, axis), div(Bitwise.bsl(1, shift), length) + 1},
        {name(:shift, group, axis), shift}
      ]
    end
    |> Enum.concat()
  end

  # The number of bits of a natural number.
  defp bits(0), do: 0
  defp bits(n), do: n |> Integer.digits(2) |> Kernel.length()

  @doc "The arguments with the lengths of the axes that `coordinates/4` uses."
  def lengths(_lengths, [], _group), do: []

  def lengths(lengths, used, group) do
    first = max(Enum.min(used), 1)

    for {length, axis} <- Enum.with_index(lengths),
        axis >= first,
        do: {name(:length, group, axis), length}
  end

  @doc "The index `from` plus the coordinates times the strides of an operand."
  def offset(from, operand, pattern, group) do
    for {1, axis} <- Enum.with_index(pattern), reduce: from do
      sum ->
        call(
          :add,
          sum,
          call(:mul, var(name(:at, group, axis)), var(stride(operand, group, axis)))
        )
    end
  end

  @doc "The arguments with the strides of an operand that are not 0."
  def strides(operand, strides, group) do
    for {stride, axis} <- Enum.with_index(strides),
        stride != 0,
        do: {stride(operand, group, axis), wrapped(stride)}
  end

  @doc "A stride or an offset in the arithmetic of :u32."
  def wrapped(stride), do: Integer.mod(stride, @modulus)

  @doc "The argument with the stride of an operand along an axis."
  def stride(operand, {:part, _}, axis), do: name(operand, "s#{axis}")
  def stride(operand, group, axis), do: name(operand, "#{@groups[group]}s#{axis}")
end
