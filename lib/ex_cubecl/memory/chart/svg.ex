defmodule ExCubecl.Memory.Chart.Svg do
  @moduledoc false
  # Drawing functions that both charts use.

  @doc "An SVG document of this size; its parts are given in pixels."
  def document(width, height, parts) do
    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{width} #{height}" width="#{width}" ),
      ~s(height="#{height}" font-family="sans-serif" font-size="12" fill="#222">),
      ~s(<style>.b:hover,.s:hover{stroke:#000;stroke-width:1.5;fill-opacity:1}.s{fill-opacity:0}</style>),
      ~s(<rect width="#{width}" height="#{height}" fill="#fff"/>),
      parts,
      "</svg>"
    ]
  end

  def text(x, y, text, more \\ ""),
    do: ~s(<text x="#{n(x)}" y="#{n(y)}" #{more}>#{escape(text)}</text>)

  @doc "A rectangle with `title` as its tooltip."
  def box(x, y, width, height, fill, title, class \\ "b") do
    ~s(<rect class="#{class}" x="#{n(x)}" y="#{n(y)}" width="#{n(width)}" height="#{n(height)}" ) <>
      ~s(fill="#{fill}"><title>#{escape(title)}</title></rect>)
  end

  def line(x1, y1, x2, y2, stroke),
    do: ~s(<line x1="#{n(x1)}" y1="#{n(y1)}" x2="#{n(x2)}" y2="#{n(y2)}" stroke="#{stroke}"/>)

  @doc "A number with at most one decimal."
  def n(number) when is_integer(number), do: Integer.to_string(number)
  def n(number), do: :erlang.float_to_binary(number, decimals: 1)

  @doc "Escapes untrusted text for a document. Control characters, which XML does not allow, become spaces."
  def escape(text) do
    text
    |> String.replace(~r/[\x00-\x1f\x7f]/, " ")
    |> String.replace("&", "&amp;")
    |> String.replace("<", "&lt;")
    |> String.replace(">", "&gt;")
    |> String.replace("\"", "&quot;")
  end

  @doc """
      iex> ExCubecl.Memory.Chart.Svg.bytes(1536)
      "1.5 KiB"
  """
  def bytes(bytes) when bytes < 1024, do: "#{bytes} B"

  def bytes(bytes) do
    units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    power = min(floor(:math.log(bytes) / :math.log(1024)), length(units))
    amount = bytes / Integer.pow(1024, power)
    decimals = if amount >= 100 or amount == trunc(amount), do: 0, else: 1
    :erlang.float_to_binary(amount, decimals: decimals) <> " " <> Enum.at(units, power - 1)
  end
end
