defmodule ExCubecl.Memory.Chart.Svg do
  @moduledoc false
  # Drawing functions that both charts use.

  # Boxes answer the mouse pointer through the labels that lie on them.
  @style ".b:hover,.s:hover{stroke:#000;stroke-width:1.5;fill-opacity:1}.s{fill-opacity:0}text{pointer-events:none}"

  @doc "An SVG document of this size; its parts are given in pixels."
  def document(width, height, title, parts) do
    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{width} #{n(height)}" width="#{width}" ),
      ~s(height="#{n(height)}" font-family="sans-serif" font-size="12" fill="#222" role="img">),
      "<title>#{escape(title)}</title><style>#{@style}</style>",
      ~s(<rect width="#{width}" height="#{n(height)}" fill="#fff"/>),
      text(10, 24, title, ~s(font-size="16" font-weight="bold")),
      parts,
      "</svg>"
    ]
  end

  def text(x, y, text, more \\ ""),
    do: ~s(<text x="#{n(x)}" y="#{n(y)}" #{more}>#{escape(text)}</text>)

  @doc "A rectangle with `title` as its tooltip."
  def box(x, y, width, height, fill, title, more \\ ~s(class="b")) do
    ~s(<rect #{more} x="#{n(x)}" y="#{n(y)}" width="#{n(width)}" height="#{n(height)}" ) <>
      ~s(fill="#{fill}"><title>#{escape(title)}</title></rect>)
  end

  def line(x1, y1, x2, y2, stroke, more \\ "") do
    ~s(<line x1="#{n(x1)}" y1="#{n(y1)}" x2="#{n(x2)}" y2="#{n(y2)}" stroke="#{stroke}" #{more}/>)
  end

  @doc "Whether the text takes at most about `width` pixels at 12 pixels a line."
  def fits?(text, width), do: width(text) <= width

  @doc "The text, cut to about `width` pixels at 12 pixels a line; `nil` if too little of it would be left."
  @spec fit(String.t(), number) :: String.t() | nil
  def fit(text, width) do
    cond do
      fits?(text, width) -> text
      width < 45 -> nil
      true -> cut(String.graphemes(text), width - 12, []) <> "…"
    end
  end

  defp cut([first | rest], width, kept) do
    case width - width(first) do
      left when left >= 0 -> cut(rest, left, [first | kept])
      _ -> kept |> Enum.reverse() |> Enum.join()
    end
  end

  # An estimate: fonts differ, and the letters of East Asian scripts are wide.
  defp width(text), do: for(<<c::utf8 <- text>>, reduce: 0, do: (sum -> sum + advance(c)))

  defp advance(c) when c > 0x2E7F, do: 13
  defp advance(c) when c in ?A..?Z or c in ~c"mw%@", do: 9
  defp advance(c) when c in ~c" ,.:;!|'()[]/iljtfI", do: 4.5
  defp advance(_), do: 7

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

  def percent(part, whole) do
    case 100 * part / max(whole, 1) do
      percent when percent < 0.1 -> "less than 0.1 %"
      percent when percent < 10 -> "#{n(percent)} %"
      percent -> "#{round(percent)} %"
    end
  end
end
