if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Group do
    @moduledoc false
    # Nodes that run as one operation on the device.
    #
    #   * `kind` - `:map` for element-wise results, `{:reduce, id}` for the reduction of an element-wise result, `{:rows, description}` for `ExCubecl.Compiler.Fusion.Rows`,
    #     `{:parts, groups}` for element-wise groups of several shapes in one launch, which have the code
    #   * `inputs`, `outputs`, `members` - ids; constants and indices that the kernel has itself are no inputs
    #   * `exprs` - the members, which run one by one on the backend where the kernel does not serve
    #   * `shape` - that of the elements which the kernel calculates
    #   * `code`, `sources` - as those of `ExCubecl.Compiler.Fusion.Code`; `kernel` applies code with one result to an element
    #   * `exponents` - inputs that are the exponents of powers, of which the backend treats some numbers in another way

    @enforce_keys [:kind, :inputs, :outputs, :members, :exprs]
    defstruct @enforce_keys ++ [:shape, :code, :kernel, sources: [], exponents: []]

    @type t :: %__MODULE__{}
  end
end
