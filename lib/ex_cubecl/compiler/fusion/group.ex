if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Group do
    @moduledoc false
    # Nodes that run as one operation on the device.
    #
    #   * `kind` - `:map` for element-wise results, `{:reduce, id}` for the reduction of an element-wise result, `{:operation, id}` for `ExCubecl.Compiler.Fusion.Operation`,
    #     `{:rows, description}` for `ExCubecl.Compiler.Fusion.Rows`, `{:parts, groups}` for element-wise groups of several shapes in one launch, which have the code
    #   * `inputs`, `outputs`, `members` - ids; constants and indices that the kernel has itself are no inputs
    #   * `results` - the expressions of the outputs, by id
    #   * `exprs` - the expressions of the members, which run one by one on the backend where the kernel does not serve, or where all of them are small and all
    #     inputs are in host memory: `small?` is whether all are
    #   * `shape` - that of the elements which the kernel calculates
    #   * `code`, `sources` - as those of `ExCubecl.Compiler.Fusion.Code`; `kernel` applies code with one result to an element
    #   * `into` - the id of the operand that a result replaces in its memory, by that of the result (`ExCubecl.Compiler.Reuse`)
    #   * `root` - the expression of the reduction or of the operation; `epilogue` - `nil`, or the code of what follows it with its sources, among them the root
    #   * `exponents` - inputs that are the exponents of powers, of which the backend treats some numbers in another way

    @enforce_keys [:kind, :inputs, :outputs, :members, :results]
    defstruct @enforce_keys ++
                [:exprs, :shape, :code, :kernel, :root, :epilogue] ++
                [sources: [], exponents: [], into: %{}, small?: false]

    @type t :: %__MODULE__{}
  end
end
