if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Graph.Calls do
    @moduledoc false
    # Functions of the caller, which take containers, as functions of the list of the tensors in it.

    alias Nx.Defn.Composite

    @doc "A container without the data of its tensors."
    @spec template(Nx.Container.t()) :: Nx.Container.t()
    def template(container), do: Composite.traverse(container, &%{&1 | data: nil})

    @doc "The function of a hook."
    @spec hook(fun, Nx.Container.t()) :: ([Nx.Tensor.t()] -> term)
    def hook(fun, container) do
      template = template(container)
      fn values -> fun.(filled(template, values)) end
    end

    @doc "The function of a `runtime_call`, whose results are those of `template`."
    @spec runtime_call(fun, Nx.Container.t(), Nx.Container.t(), term) ::
            ([Nx.Tensor.t()] -> [Nx.Tensor.t()])
    def runtime_call(fun, container, template, opts) do
      container = template(container)

      fn values ->
        result = fun.(filled(container, values), opts)

        unless Nx.compatible?(template, result),
          do: raise("expected the runtime_call function to match the given output template")

        Composite.flatten_list([result])
      end
    end

    defp filled(template, values) do
      {container, []} =
        Composite.traverse(template, values, fn _, [value | rest] -> {value, rest} end)

      container
    end
  end
end
