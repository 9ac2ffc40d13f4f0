defmodule ExCubecl.Kernel.Types do
  @moduledoc false
  # Types of typed expressions: how they merge, as in Nx, and how a number takes the type of the other operand.

  alias ExCubecl.DType

  defmodule TypeError do
    @moduledoc false
    defexception [:line, :text]
    @impl true
    # An error about the whole kernel has no line.
    def message(%{line: 0, text: text}), do: text
    def message(%{line: line, text: text}), do: "line #{line}: #{text}"
  end

  @floats [:f16, :bf16, :f32, :f64]

  defguard floating?(type) when type in @floats

  def unsigned?(type), do: type in [:u8, :u16, :u32, :u64]

  # A number without a typed operand gets a default type of the state.
  def defaulted({{:number, n}, state}), do: typed_as({:number, n}, default_type(n, state), state)

  def defaulted({{:argument, :int, _} = argument, state}),
    do: typed_as(argument, state.integer, state)

  def defaulted({{:argument, :float, _} = argument, state}),
    do: typed_as(argument, state.float, state)

  def defaulted({{_, _}, _} = typed), do: typed

  defp typed_as(typed, type, state) do
    {tree, state} = coerce(typed, type, state)
    {{type, tree}, state}
  end

  defp default_type(n, state) when is_integer(n) and n in -2_147_483_648..2_147_483_647,
    do: state.integer

  defp default_type(n, _state) when is_integer(n), do: :s64
  defp default_type(_float, state), do: state.float

  @doc "The type that two typed expressions merge to; that of two numbers is `float` or `integer` of the state."
  def merged({:number, a}, {:number, b}, _line, state) do
    if is_float(a) or is_float(b),
      do: state.float,
      else: default_type(max(abs(a), abs(b)), state)
  end

  def merged({:argument, a, _}, {:argument, b, _}, _line, state),
    do: if(:float in [a, b], do: state.float, else: state.integer)

  def merged({:argument, :float, _}, {:number, _}, _line, state), do: state.float
  def merged({:argument, :int, _}, {:number, n}, _line, state), do: default_type(n, state)

  def merged({:number, _} = number, {:argument, _, _} = argument, line, state),
    do: merged(argument, number, line, state)

  def merged({:number, _} = number, {type, _}, line, _state), do: join(type, number, line)
  def merged({type, _}, other, line, _state), do: join(type, other, line)
  def merged(argument, {type, _}, line, _state), do: join(type, argument, line)

  # The type of a typed value combined with another operand.
  def join(:bool, {:bool, _}, _line), do: :bool

  def join(:bool, _, line),
    do: type_error(line, "a comparison and a number do not mix: use if c do 1 else 0 end")

  def join(type, {:number, n}, _line), do: with_number(type, is_float(n))
  def join(type, {:argument, kind, _}, _line), do: with_number(type, kind == :float)

  def join(_type, {:bool, _}, line),
    do: type_error(line, "a comparison and a number do not mix: use if c do 1 else 0 end")

  def join(type, {other, _}, _line), do: mix(type, other)

  defp with_number(type, true) when type not in @floats, do: :f32
  defp with_number(type, _float?), do: type

  @doc "The type that two types merge to, as `Nx.Type.merge/2`."
  def mix(same, same), do: same

  def mix(a, b) do
    case {kind(a), kind(b)} do
      {:float, :float} -> mix_floats(a, b)
      {:float, _} -> a
      {_, :float} -> b
      {same, same} -> if DType.size!(a) >= DType.size!(b), do: a, else: b
      {:unsigned, :signed} -> signed(max(2 * DType.size!(a), DType.size!(b)))
      {:signed, :unsigned} -> signed(max(DType.size!(a), 2 * DType.size!(b)))
    end
  end

  defp mix_floats(a, b) do
    Enum.find([:f64, :f32, :f16], &(&1 in [a, b]))
  end

  defp kind(type) when type in @floats, do: :float
  defp kind(type), do: if(unsigned?(type), do: :unsigned, else: :signed)

  defp signed(bytes), do: elem({:s8, :s16, :s32, :s64}, trunc(:math.log2(min(bytes, 8))))

  def coerce({:number, n}, type, state), do: {constant(n, type), state}

  def coerce({:argument, :float, name}, type, state) when type not in @floats,
    do: scalar({:whole, name}, type, state)

  def coerce({:argument, _, name}, type, state), do: scalar(name, type, state)
  def coerce({type, tree}, type, state), do: {tree, state}
  def coerce({_, tree}, type, state), do: {{:cast, type, tree}, state}

  defp constant(n, type) when type in @floats do
    {:const, type, n / 1}
  rescue
    ArithmeticError ->
      # `Integer.digits/1` divides for each digit.
      digits = n |> abs() |> Integer.to_string() |> byte_size()
      type_error(0, "a number of #{digits} digits does not fit #{type}")
  end

  defp constant(n, type) do
    whole = whole(n)
    {low, high} = range(type)

    cond do
      is_float(whole) -> type_error(0, "#{n} does not fit #{type}: use cast(#{n}, :#{type})")
      whole in low..high -> {:const, type, whole}
      true -> type_error(0, "#{n} does not fit #{type}: use cast to a wider type")
    end
  end

  @doc "A float without a fraction as an integer; anything else as it is."
  def whole(n) when is_float(n), do: if(trunc(n) == n, do: trunc(n), else: n)
  def whole(n), do: n

  @doc "The result of `cast` on a typed expression."
  def converted({:number, n}, type, state) when type not in @floats,
    do: {{:const, type, number_as(n, type)}, state}

  def converted({:argument, _, name}, type, state) when type not in @floats,
    do: scalar({:cast, name, type}, type, state)

  def converted(typed, type, state), do: coerce(typed, type, state)

  @doc "The bits of a typed tree as another type of the same size."
  def bitcast(tree, dtype, dtype, _line), do: tree

  def bitcast(tree, type, dtype, line) do
    if type == :bool or DType.size!(type) != DType.size!(dtype),
      do:
        type_error(
          line,
          "bitcast keeps the bits, and #{type} has not as many as #{dtype}: see cast"
        ),
      else: {:bitcast, dtype, tree}
  end

  @doc "A number as the device casts it to an integer type: a float is clamped to the range, an integer keeps its low bits."
  def number_as(:nan, _type), do: 0
  def number_as(:infinity, type), do: type |> range() |> elem(1)
  def number_as(:neg_infinity, type), do: type |> range() |> elem(0)

  def number_as(n, type) when is_float(n) do
    {low, high} = range(type)
    n |> trunc() |> max(low) |> min(high)
  end

  def number_as(n, type) do
    {low, high} = range(type)
    Integer.mod(n - low, high - low + 1) + low
  end

  defp range(type) do
    bits = 8 * DType.size!(type)

    if unsigned?(type),
      do: {0, Integer.pow(2, bits) - 1},
      else: {-Integer.pow(2, bits - 1), Integer.pow(2, bits - 1) - 1}
  end

  def scalar(name, type, state) do
    key = {name, type}
    state = %{state | scalars: Map.put_new(state.scalars, key, map_size(state.scalars))}
    {{:scalar, state.scalars[key]}, state}
  end

  @spec type_error(integer, String.t()) :: no_return
  def type_error(line, text), do: raise(TypeError, line: line, text: text)
end
