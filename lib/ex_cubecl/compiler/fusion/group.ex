if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Group do
    @moduledoc false
    # Nodes that run as one operation on the device.
    #
    #   * `kind` - `:map` for element-wise results, `{:reduce, id}` for the reduction of an element-wise result, `{:operation, id}` for `ExCubecl.Compiler.Fusion.Operation`,
    #     `{:rows, description}` for `ExCubecl.Compiler.Fusion.Rows`, `{:parts, groups}` for element-wise groups of several shapes in one launch, which have the code
    #   * `inputs`, `outputs`, `members` - ids; constants and indices that the kernel has itself are no inputs
    #   * `results` - the expressions of the outputs, by id
    #   * `members_binary` - the expressions of the members, which run one by one on the backend where the kernel does not serve. They are seldom needed, and
    #     a binary of them is small
    #   * `shape` - that of the elements which the kernel calculates
    #   * `code`, `sources` - as those of `ExCubecl.Compiler.Fusion.Code`; `kernel` applies code with one result to an element
    #   * `into` - the id of the operand that a result replaces in its memory, by that of the result (`ExCubecl.Compiler.Reuse`)
    #   * `root` - the expression of the reduction or of the operation; `epilogue` - `nil`, or the code of what follows it with its sources, among them the root
    #   * `exponents` - inputs that are the exponents of powers, of which the backend treats some numbers in another way

    @enforce_keys [:kind, :inputs, :outputs, :members, :results]
    defstruct @enforce_keys ++
                [:members_binary, :shape, :code, :kernel, :root, :epilogue] ++
                [sources: [], exponents: [], into: %{}]

    @type t :: %__MODULE__{}

    @doc "A group of expressions."
    @spec put_exprs(t, [Nx.Tensor.t()]) :: t
    def put_exprs(group, exprs),
      do: %{group | members_binary: :erlang.term_to_binary(exprs, compressed: 1)}

    @doc "The expressions of the members."
    @spec exprs(t) :: [Nx.Tensor.t()]
    def exprs(%{members_binary: binary}), do: :erlang.binary_to_term(binary)
  end
end
