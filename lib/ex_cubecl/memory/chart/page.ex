defmodule ExCubecl.Memory.Chart.Page do
  @moduledoc false
  # HTML around the pictures. The page of a map has its tables, and a search by tag and owner.

  alias ExCubecl.Memory.Chart.Svg

  @style """
  .ex_cubecl{font:13px sans-serif;color:#222;max-width:1000px}
  .ex_cubecl svg{max-width:100%;height:auto}
  .ex_cubecl form{position:sticky;top:0;background:#fff;padding:10px}
  .ex_cubecl input{font:inherit;width:26em;padding:5px}
  .ex_cubecl table{border-collapse:collapse;margin:6px 10px 18px;width:calc(100% - 20px)}
  .ex_cubecl td,.ex_cubecl th{text-align:left;padding:2px 10px 2px 0;border-bottom:1px solid #e4e4e4;vertical-align:top}
  .ex_cubecl td{overflow-wrap:anywhere}.ex_cubecl .r{text-align:right;white-space:nowrap}
  .ex_cubecl i{display:inline-block;width:12px;height:12px;margin-right:6px;vertical-align:-1px}
  .ex_cubecl .t{max-height:4.2em;overflow:auto}
  .ex_cubecl .groups tr[data-s]{cursor:pointer}.ex_cubecl .groups tr[data-s]:hover{background:#f1f4f8}
  .ex_cubecl .d{min-width:13em}
  .ex_cubecl rect.out{opacity:.12}
  """

  # Rows beyond the first 50 stay hidden until a search or the button shows them. Without scripts all rows are visible.
  @script """
  (() => {
    const root = document.currentScript.closest(".ex_cubecl");
    const input = root.querySelector("input"), note = root.querySelector("output"), more = root.querySelector("button");
    const rows = [...root.querySelectorAll(".buffers tbody tr")];
    const keys = rows.map(row => (row.cells[2].textContent + " " + row.cells[3].textContent).toLowerCase());
    const boxes = [...root.querySelectorAll("rect[data-n]")].map(box => [box, box.dataset.n.split(" ").map(Number)]);
    let most = 50;
    const size = bytes => {
      let unit = 0;
      while (bytes >= 1024 && unit < 5) { bytes /= 1024; unit++; }
      return (bytes < 100 && !Number.isInteger(bytes) ? bytes.toFixed(1) : Math.round(bytes)) + " " + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
    };
    const update = () => {
      const text = input.value.trim().toLowerCase();
      const words = text.split(/\\s+/);
      const found = new Set();
      let bytes = 0;
      rows.forEach((row, n) => {
        const match = keys[n].includes(text) || words.every(word => keys[n].includes(word));
        row.hidden = !match || found.size >= most;
        if (match) { found.add(n); bytes += Number(row.dataset.bytes); }
      });
      boxes.forEach(([box, all]) => box.classList.toggle("out", !all.some(n => found.has(n))));
      note.textContent = (text ? found.size + " of " + rows.length + " buffers match, " : rows.length + " buffers, ") + size(bytes) +
        (found.size > most ? "; the " + most + " largest are listed" : "");
      more.hidden = found.size <= most;
    };
    more.onclick = () => { most = Infinity; update(); };
    input.oninput = () => { most = 50; update(); };
    root.querySelector("form").onsubmit = event => event.preventDefault();
    root.querySelectorAll(".groups tr[data-s]").forEach(row => {
      row.onclick = () => { input.value = input.value === row.dataset.s ? "" : row.dataset.s; input.oninput(); };
    });
    update();
  })();
  """

  @doc "A document of a title and a body."
  def document(title, body) do
    [
      ~s(<!doctype html><html lang="en"><head><meta charset="utf-8"><title>),
      Svg.escape(title),
      ~s(</title></head><body style="margin:1.5em;background:#fff">),
      body,
      "</body></html>\n"
    ]
  end

  @doc "The body of a page that is only a picture."
  def picture(svg), do: [~s(<div class="ex_cubecl">), svg, "</div>"]

  @doc "The body of a map: its picture, the search, the sums of its groups and its allocations."
  def map(svg, groups, {rows, rest}, entries) do
    [
      ~s(<div class="ex_cubecl"><style>#{@style}</style>),
      svg,
      ~s(<form><input type="search" placeholder="Search by tag or owner" aria-label="Search by tag or owner"> <output></output> ),
      ~s(<button type="button" hidden>Show all</button></form>),
      ~s(<table class="groups"><thead><tr><th>group</th><th class="r">bytes</th><th class="r">share</th>),
      ~s(<th class="r">buffers</th></tr></thead><tbody>),
      for({row, group} <- Enum.zip(rows, groups), do: sums(row, group)),
      for(line <- rest, do: ~s(<tr><td colspan="4">#{Svg.escape(line)}</td></tr>)),
      ~s(</tbody></table><table class="buffers"><thead><tr><th class="r">bytes</th><th>type</th><th>tag</th><th>owner</th>),
      ~s(<th class="r">age</th><th class="r">storage</th></tr></thead><tbody>),
      for(entry <- entries, do: allocation(entry)),
      "</tbody></table><script>#{@script}</script></div>"
    ]
  end

  defp sums({colour, [name | numbers]}, group) do
    search =
      if match?({:page, _}, group.key), do: "", else: ~s( data-s="#{Svg.escape(search(group))}")

    [
      "<tr#{search}><td><div class=\"t\">#{swatch(colour)}#{Svg.escape(name)}</div></td>",
      for(number <- numbers, do: ~s(<td class="r">#{Svg.escape(number)}</td>)),
      "</tr>"
    ]
  end

  defp search(%{key: {:tag, _}, entries: [entry | _]}), do: entry.tag
  defp search(%{entries: [entry | _]}), do: entry.owner

  defp allocation(entry) do
    [
      ~s(<tr data-bytes="#{entry.bytes}"><td class="r">#{Svg.bytes(entry.bytes)}</td>),
      ~s(<td class="d" title="#{Svg.escape(entry.location)}">#{swatch(entry.colour)}#{Svg.escape(entry.type)}</td>),
      ~s(<td><div class="t">#{Svg.escape(entry.tag || "")}</div></td><td>#{Svg.escape(entry.owner)}</td>),
      ~s(<td class="r">#{entry.age}</td><td class="r">#{entry.storage}</td></tr>)
    ]
  end

  defp swatch(colour), do: ~s(<i style="background:#{colour}"></i>)
end
