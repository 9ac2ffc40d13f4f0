defmodule ExCubecl.Ops.Epilogue do
  @moduledoc false
  # Element-wise work on the result of an operation, which the last kernel of the operation does, too. It stands in place of the buffer for the result, the last
  # argument of an operation, which then returns `{:ok, buffers}` with the results of the epilogue. A kernel that does not know epilogues ignores it: `applied/2` launches the
  # code then.
  #
  # The code reads the result of the operation as one of its arguments, and therefore rounded to its type, as it would be in memory.

  alias ExCubecl.{Buffer, DType, Error, Shape, View}
  alias ExCubecl.Ops.{Inlined, Results}

  @enforce_keys [:code, :operands, :shape, :opts]
  defstruct @enforce_keys ++ [targets: []]

  @typedoc """
  `operands` are those of the code, with `:given` in place of the result of the operation; `shape` is that of all results, or one with as many elements in the same
  order; `opts` are those of `ExCubecl.Buffer.empty/3`, and `targets` those of `ExCubecl.Ops.Results.run/5`, which the operation itself does not read.
  """
  @type t :: %__MODULE__{
          code: Results.code(),
          operands: [Results.operand() | :given],
          shape: Shape.t(),
          opts: keyword,
          targets: [Buffer.t() | nil]
        }

  @doc "The results of the epilogue, if the operation did not calculate them."
  @spec applied(result, t | Buffer.t() | nil) :: result | {:ok, [Buffer.t()]}
        when result: {:ok, Buffer.t()} | {:ok, [Buffer.t()]} | :ok | {:error, Error.t()}
  def applied({:ok, %Buffer{} = buffer}, %__MODULE__{} = epilogue) do
    given = View.new(%{buffer | shape: epilogue.shape})

    operands =
      for operand <- epilogue.operands, do: if(operand == :given, do: given, else: operand)

    Results.run(epilogue.code, operands, epilogue.shape, epilogue.opts, epilogue.targets)
  end

  def applied(result, _into), do: result

  @doc "The epilogue as a part of a kernel whose result has a type, or `:none`."
  @spec inlined(t | Buffer.t() | nil, DType.t()) ::
          {:ok, Inlined.t()} | :none | {:error, Error.t()}
  def inlined(%__MODULE__{code: %{args: args}, operands: operands} = epilogue, dtype) do
    if Enum.at(Keyword.values(args), index(operands)) == dtype,
      do:
        Inlined.new(epilogue.code, operands, epilogue.shape, epilogue.opts, {0, epilogue.targets}),
      else: :none
  end

  def inlined(_into, _dtype), do: :none

  @doc "The statements of an inlined epilogue, which reads the result of the operation as an expression."
  @spec statements(Inlined.t(), t, term) :: list
  def statements(inlined, %{operands: operands}, expression) do
    name = inlined.code.args |> Keyword.keys() |> Enum.at(index(operands))
    Inlined.statements(inlined, %{name => expression})
  end

  defp index(operands), do: Enum.find_index(operands, &(&1 == :given))
end
