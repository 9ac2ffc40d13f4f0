# Compiled if Kino is available. Livebook then renders a chart that is the result of a cell.
if Code.ensure_loaded?(Kino.Render) do
  defimpl Kino.Render, for: ExCubecl.Memory.Chart do
    def to_livebook(chart) do
      chart |> ExCubecl.Memory.Chart.svg!() |> Kino.HTML.new() |> Kino.Render.to_livebook()
    end
  end
end
