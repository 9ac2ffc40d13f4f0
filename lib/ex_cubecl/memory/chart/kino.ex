# Compiled if Kino is available. Livebook then renders a chart that is the result of a cell, with its search.
if Code.ensure_loaded?(Kino.Render) do
  defimpl Kino.Render, for: ExCubecl.Memory.Chart do
    def to_livebook(%{html: html}),
      do: html |> IO.iodata_to_binary() |> Kino.HTML.new() |> Kino.Render.to_livebook()
  end
end
