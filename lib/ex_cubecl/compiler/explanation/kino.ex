# Compiled if Nx and Kino are available. Livebook then draws an explanation that is the result of a cell.
if Code.ensure_loaded?(Kino.Render) and Code.ensure_loaded?(Nx.Defn.Expr) do
  defimpl Kino.Render, for: ExCubecl.Compiler.Explanation do
    def to_livebook(explanation),
      do: explanation |> ExCubecl.Compiler.Explanation.Chart.chart() |> Kino.Render.to_livebook()
  end
end
