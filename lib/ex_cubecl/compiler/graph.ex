if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Graph do
    @moduledoc false
    # The nodes of a traced expression, numbered by its structure. An expression shares its nodes by reference, and a program is cached as a persistent term, which copies
    # terms without their sharing: in a graph an operand is a stub, which has no operands of its own.
    #
    # Two expressions of the same structure have the same nodes and the same key. What they may differ in is outside: tensors and functions that
    # the expression closed over are captured, in the order of the nodes that use them.
    #
    # A node is an Nx.Tensor with an Nx.Defn.Expr whose id is an integer; operands have smaller ids. Besides the operations of Nx.Backend there are
    #
    #   * `:parameter [index]`, `:captured [index]`, `:constant [number]`
    #   * `:elem [tuple, index]`
    #   * `:cond [predicate, [result if true], [result if false]]`: chains are nested
    #   * `:while [[initial], condition, body]` with two graphs
    #   * `:fun [arity, body]` with a graph
    #   * `:effects [[value], calls]`: each call is `{index of a captured function, number of its values}`
    #   * `:attach [effects, value]`: the value, after the effects
    #   * `:runtime_call [[value], index of a captured function, [description of a result]]`
    #   * `:block [struct, arguments]`, of several results `[struct, descriptions, arguments]`: a block that ExCubecl.Backend has; others are their default
    #     implementation

    alias ExCubecl.Compiler.Graph
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @enforce_keys [:nodes, :outputs]
    defstruct [:nodes, :outputs]

    @type stub :: Nx.Tensor.t()
    @type t :: %__MODULE__{nodes: %{non_neg_integer => Nx.Tensor.t()}, outputs: [stub]}

    @doc "The operands of a node, those of nested graphs excepted."
    @spec operands(Nx.Tensor.t()) :: [stub]
    def operands(%T{data: %Expr{args: args}}), do: Enum.flat_map(args, &stubs/1)

    defp stubs(%T{data: %Expr{}} = stub), do: [stub]
    defp stubs(list) when is_list(list), do: Enum.flat_map(list, &stubs/1)
    defp stubs(_other), do: []

    @doc "Nodes, and those of the graphs in them."
    @spec all([Nx.Tensor.t()]) :: [Nx.Tensor.t()]
    def all(nodes) do
      inner = for %T{data: %Expr{args: args}} <- nodes, %Graph{nodes: nodes} <- args, do: nodes
      nodes ++ Enum.flat_map(inner, &(&1 |> Map.values() |> all()))
    end

    @doc "The operand itself, without operands."
    @spec stub(Nx.Tensor.t()) :: stub
    def stub(%T{data: %Expr{op: op, args: args} = expr} = node) do
      args = if op in [:constant, :iota, :eye, :parameter, :captured], do: args, else: []
      %{node | data: %{expr | args: args}}
    end
  end
end
