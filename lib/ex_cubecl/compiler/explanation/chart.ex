if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Explanation.Chart do
    @moduledoc false
    # Draws an explanation: one row for each step, with a bar of the bytes that are live.

    alias ExCubecl.Compiler.Explanation
    alias ExCubecl.Memory.Chart
    alias ExCubecl.Memory.Chart.Svg

    @row 18
    @top 40
    @text 420
    @bar 360
    @colours %{
      kernel: "#2a6f97",
      operation: "#e09f3e",
      view: "#bbbbbb",
      host: "#9e2a2b",
      loop: "#6a4c93",
      condition: "#6a4c93",
      call: "#6a4c93"
    }

    @doc "The chart of an explanation, as `ExCubecl.Memory.Chart` shows it."
    @spec chart(Explanation.t()) :: Chart.t()
    def chart(%Explanation{} = explanation) do
      rows = rows(explanation.steps, 0)
      scale = @bar / max(explanation.peak, 1)
      height = @top + @row * (length(rows) + 1)

      parts =
        for {{depth, step}, at} <- Enum.with_index(rows),
            do: row(depth, step, @top + at * @row, scale)

      title = Explanation.title(explanation)
      svg = Svg.document(@text + @bar + 120, height, title, parts)
      %Chart{title: title, svg: svg, html: svg}
    end

    defp rows(steps, depth),
      do: Enum.flat_map(steps, &[{depth, &1} | rows(&1.steps, depth + 1)])

    defp row(depth, step, y, scale) do
      live = Svg.bytes(step.live)
      details = "#{step.kind}: #{step.text}, #{step.launches} launches, #{live} live"

      [
        Svg.text(8 + 14 * depth, y + 14, String.slice(step.text, 0, 60)),
        Svg.box(@text, y + 3, step.live * scale, @row - 6, @colours[step.kind], details),
        Svg.text(@text + step.live * scale + 6, y + 14, live)
      ]
    end
  end
end
