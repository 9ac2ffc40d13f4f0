# Compiled where Kino is there. A chart shows itself as a cell's result.
if Code.ensure_loaded?(Kino.Render) do
  defimpl Kino.Render, for: ExCubecl.Memory.Chart do
    def to_livebook(chart) do
      chart |> ExCubecl.Memory.Chart.svg() |> Kino.HTML.new() |> Kino.Render.to_livebook()
    end
  end
end
