defmodule ExCubecl.Ops.Into do
  @moduledoc false
  # The option `into:` of operations that are not element-wise. Operands that share bytes with the buffer are refused, because kernels write elements
  # of the result before they have read all elements of the operands.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Buffer.{Handle, Info}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.ErrorContext
  alias ExCubecl.Ops.{Operands, Shapes, Target}
  alias ExCubecl.View.Strides

  @typedoc "Calculates the result, in the buffer if it can, which it tells by `:ok` or by returning a buffer with the same bytes."
  @type calculation :: (keyword, Target.into() -> {:ok, Buffer.t()} | :ok | {:error, Error.t()})

  @doc "Runs an operation, with its operands by the names that errors show. Without `into:`, the result is that of the calculation."
  @spec run(atom, [{atom | String.t(), term}], term, calculation) ::
          {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def run(name, operands, opts, calculation) do
    result =
      case split(opts) do
        :none ->
          calculation.(opts, nil)

        {into, opts} ->
          with {:ok, into} <- Handle.local(into),
               :ok <- apart(name, operands, into),
               {:ok, result} <- calculation.(opts, into),
               do: deliver(name, result, into)
      end

    Arguments.further_options(result, [:into])
  end

  @doc "As `run/4`, for an operation without other options."
  def run_only(name, operands, opts, calculation) do
    run(name, operands, opts, fn opts, into ->
      with {:ok, []} <- Arguments.options(opts, []), do: calculation.(into)
    end)
  end

  @doc "As `run/4`, for an operation with two results. `into:` is a pair of buffers."
  def run_pair(name, operands, opts, calculation) do
    result =
      case split(opts) do
        :none ->
          calculation.(opts, {nil, nil})

        {{first, second}, opts} ->
          with {:ok, first} <- Handle.local(first),
               {:ok, second} <- Handle.local(second),
               :ok <- apart(name, operands ++ [indices: second], first),
               :ok <- apart(name, operands, second),
               {:ok, {one, two}} <- calculation.(opts, {first, second}),
               :ok <- fits(name, one, first),
               :ok <- fits(name, two, second),
               :ok <- deliver(name, one, first),
               do: deliver(name, two, second)

        {other, _opts} ->
          Shapes.invalid(name, :into, other, "two buffers, {values, indices}")
      end

    Arguments.further_options(result, [:into])
  end

  @doc "The operands of an operation on a list of buffers."
  def listed(buffers) do
    if is_list(buffers) and not List.improper?(buffers),
      do: for({buffer, at} <- Enum.with_index(buffers), do: {"buffers[#{at}]", buffer}),
      else: []
  end

  defp split(opts) do
    if Keyword.keyword?(opts) and Keyword.has_key?(opts, :into),
      do: Keyword.pop(opts, :into),
      else: :none
  end

  ## Aliases

  defp apart(name, operands, into) do
    case Enum.find(operands, fn {_, operand} -> shares?(operand, into) end) do
      nil ->
        :ok

      {operand, _} ->
        parsed = %{name: name, args: for({operand, _} <- operands, do: operand)}
        details = ErrorContext.argument(parsed, :into)
        Error.new(:overlap, Map.put(details, :other, ErrorContext.argument(parsed, operand)))
    end
  end

  # Terms that are no operands are left to the checks of the operation.
  defp shares?(operand, into) do
    with {:ok, view} <- Operands.view(operand),
         {:ok, buffer} <-
           if(Strides.contiguous?(view), do: Strides.buffer(view), else: {:ok, view.buffer}),
         do: Info.overlap(buffer, into) == {:ok, true},
         else: (_ -> false)
  end

  ## Results that were not made in the buffer

  defp deliver(name, result, into) do
    with :ok <- fits(name, result, into) do
      if Info.overlap(result, into) == {:ok, true}, do: :ok, else: Buffer.copy(result, into)
    end
  end

  defp fits(name, result, into) do
    parsed = %{name: name, args: []}

    cond do
      result.dtype != into.dtype ->
        types = %{expected: result.dtype, actual: into.dtype}
        Error.new(:type_mismatch, Map.merge(types, ErrorContext.argument(parsed, :into)))

      result.shape != into.shape ->
        ErrorContext.shapes(parsed, :into, into.shape, {nil, result.shape})

      result.device != into.device ->
        Shapes.invalid(name, :into, into, "a buffer on the device of the operands")

      true ->
        :ok
    end
  end
end
