defmodule ExCubecl.Kernel.Suggestion do
  @moduledoc false
  # What to write in a kernel in place of a function of Elixir, Nx, NumPy, C or CUDA, or of a name that is misspelled.

  alias ExCubecl.Error.Suggestion
  alias ExCubecl.Kernel.BuiltIns

  @operators %{
    add: "a + b",
    subtract: "a - b",
    multiply: "a * b",
    divide: "a / b",
    negate: "-x",
    negative: "-x",
    square: "x * x",
    quotient: "div(a, b)",
    floor_divide: "floor(a / b)",
    remainder: "rem(a, b)",
    fmod: "rem(a, b)",
    power: "a ** b",
    equal: "a == b",
    not_equal: "a != b",
    less: "a < b",
    less_equal: "a <= b",
    greater: "a > b",
    greater_equal: "a >= b",
    logical_and: "a and b",
    logical_or: "a or b",
    logical_not: "not a",
    bitwise_and: "band(a, b)",
    bitwise_or: "bor(a, b)",
    bitwise_xor: "bxor(a, b)",
    bitwise_not: "bnot(x)",
    left_shift: "bsl(a, b)",
    right_shift: "bsr(a, b)",
    population_count: "count_ones(x)",
    popcount: "count_ones(x)",
    select: "if condition, do: a, else: b",
    where: "if condition, do: a, else: b",
    clip: "min(max(x, low), high)",
    clamp: "min(max(x, low), high)",
    relu: "max(x, 0)",
    maximum: "max(a, b)",
    minimum: "min(a, b)",
    fmax: "max(a, b)",
    fmin: "min(a, b)",
    as_type: "cast(x, :f32)",
    astype: "cast(x, :f32)",
    fabs: "abs(x)",
    ln: "log(x)",
    logistic: "sigmoid(x)",
    arcsin: "asin(x)",
    arccos: "acos(x)",
    arctan: "atan(x)",
    arctan2: "atan2(y, x)",
    is_nan: "nan?(x)",
    isnan: "nan?(x)",
    is_infinity: "infinite?(x)",
    isinf: "infinite?(x)",
    pi: "3.141592653589793",
    # CUDA, OpenCL and WGSL.
    atomicAdd: "atomic_add(output[i], x)",
    atomicMin: "atomic_min(output[i], x)",
    atomicMax: "atomic_max(output[i], x)",
    atomicAnd: "atomic_and(output[i], x)",
    atomicOr: "atomic_or(output[i], x)",
    atomicXor: "atomic_xor(output[i], x)",
    atomicExch: "atomic_exchange(output[i], x)",
    atomicExchange: "atomic_exchange(output[i], x)",
    __syncthreads: "barrier()",
    syncthreads: "barrier()",
    workgroupBarrier: "barrier()",
    get_global_id: "index()",
    get_local_id: "local()",
    get_group_id: "group()",
    get_local_size: "group_size()",
    threadIdx: "local()",
    blockIdx: "group()",
    blockDim: "group_size()"
  }

  @loop "for i <- 0..(len(x) - 1), reduce: 0 do acc -> acc + x[i] end"
  @each "a kernel runs for each element by itself: write the expression of one element"

  @collections %{
    map: @each,
    each: @each,
    zip_with: @each,
    with_index: @each,
    at: "write x[i]",
    fetch!: "write x[i]",
    count: "write len(x)",
    sum: "write a loop, #{@loop}, or call ExCubecl.Ops.sum/2 outside of the kernel",
    product: "write a loop, #{@loop}, or call ExCubecl.Ops.product/2 outside of the kernel",
    min: "write a loop, #{@loop}, or call ExCubecl.Ops.reduce_min/2 outside of the kernel",
    max: "write a loop, #{@loop}, or call ExCubecl.Ops.reduce_max/2 outside of the kernel",
    reduce: "write a loop, #{@loop}"
  }

  @doc "What to write instead of a function of a module, `nil` for a call without one; or `nil`."
  @spec instead(module | nil, atom, arity) :: String.t() | nil
  def instead(module, name, _arity) when module in [Enum, Stream], do: @collections[name]
  def instead(:rand, _name, _arity), do: nil

  def instead(module, name, arity) do
    cond do
      text = @operators[name] -> "did you mean #{text}?"
      module != nil and BuiltIns.arities(name) != [] -> built_in(name, arity)
      module == nil -> similar(name, arity)
      true -> nil
    end
  end

  defp built_in(name, arity) do
    arity = Enum.min_by(BuiltIns.arities(name), &abs(&1 - arity))
    "did you mean #{name}/#{arity}?"
  end

  defp similar(name, arity) do
    with name when name != nil <- Suggestion.similar(name, BuiltIns.names()),
         do: built_in(name, arity)
  end
end
