defmodule ExCubecl.Memory.Chart do
  @moduledoc """
  Charts of a device's memory: the map of its allocations, and its timeline.

  A chart is an SVG picture, alone or in an HTML page. It loads nothing from elsewhere, and it shows details of the
  element under the mouse pointer. The HTML page of a map lists its allocations and has a search by tag and owner. Livebook
  renders a chart if Kino is loaded; `save/2` writes it to a file.

      iex> buffer = ExCubecl.Buffer.zeros!([512, 512], :f32, tag: :weights)
      iex> {:ok, chart} = ExCubecl.Memory.Chart.map()
      iex> ExCubecl.Memory.Chart.svg!(chart) =~ "f32[512][512]"
      true
      iex> ExCubecl.size!(buffer)
      1048576
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Error, Memory}
  alias ExCubecl.Cluster.Client
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.Chart.{Drawing, Page}

  @enforce_keys [:title, :svg, :html]
  defstruct [:title, :svg, :html]

  @type t :: %__MODULE__{title: String.t(), svg: iodata, html: iodata}

  @doc """
  Returns `{:ok, chart}` of the live and reserved bytes of a device over time, as `ExCubecl.Memory.timeline/1`
  recorded them, with its limit, and with marks where garbage was collected to make room and where allocations failed.

  `by: :tag` divides the live bytes among the tags, of a recording with `tags: true`. `device:` is the device, by default
  the default device.

  Errors: `:unknown_device`, `:invalid_argument` if nothing was recorded, or for `by: :tag` no tags.

      iex> ExCubecl.Memory.timeline(every: 5, tags: true)
      iex> buffer = ExCubecl.Buffer.zeros!([1000], :f32, tag: :doc_series)
      iex> Process.sleep(50)
      iex> ExCubecl.Memory.timeline(false)
      iex> {:ok, chart} = ExCubecl.Memory.Chart.timeline(by: :tag)
      iex> ExCubecl.Memory.Chart.svg!(chart) =~ "tag :doc_series"
      true
      iex> ExCubecl.size!(buffer)
      4000
  """
  @spec timeline(by: :tag | nil, device: Memory.device()) :: {:ok, t} | {:error, Error.t()}
  def timeline(opts \\ []), do: drawn(&Drawing.timeline/1, opts)

  @doc """
  Returns `{:ok, chart}`, the map of a device: a treemap in which the area of each live allocation is proportional to its bytes.

  `by:` is what the allocations are grouped by:

    * `:tag` - their tags, or their owners if they have no tag; the default
    * `:owner` - the processes that made them
    * `:page` - the pages of device memory on which they are; what no allocation uses of a page is drawn, too.
      They are numbered from the largest

  The colour of a tag is derived from the tag, so that it is the same in every chart; where two tags of a chart would have the same
  colour, one of them takes another. Allocations that are too small to be seen are
  drawn as one box. Below are the sums of the groups and the largest allocations, and in the HTML page all of them. The bar above
  is the memory that the device's runtime holds for the library, used or not.

  `most:` is the number of allocations to draw, the largest first, 5,000 by default; `device:` is the device.

  Errors: `:unknown_device`, `:no_device`, `:invalid_argument`.

      iex> {:ok, chart} = ExCubecl.Memory.Chart.map(by: :owner, most: 100)
      iex> chart.title =~ "Memory of"
      true
  """
  @spec map(by: :tag | :owner | :page, most: non_neg_integer, device: Memory.device()) ::
          {:ok, t} | {:error, Error.t()}
  def map(opts \\ []), do: drawn(&Drawing.map/1, opts)

  defp drawn(fun, opts) do
    with {:ok, {title, svg, html}} <- Client.route_option(fun, [], opts),
         do: {:ok, %__MODULE__{title: title, svg: svg, html: html}}
  end

  @doc """
  Returns `{:ok, text}`, the chart as an SVG document.

      iex> ExCubecl.Memory.Chart.map!() |> ExCubecl.Memory.Chart.svg!() |> String.starts_with?("<svg")
      true
  """
  @spec svg(t) :: {:ok, String.t()} | {:error, Error.t()}
  def svg(chart) do
    with {:ok, %{svg: svg}} <- check(chart), do: {:ok, IO.iodata_to_binary(svg)}
  end

  @doc """
  Returns `{:ok, text}`, the chart as an HTML page.

      iex> ExCubecl.Memory.Chart.html!(ExCubecl.Memory.Chart.map!()) =~ "<!doctype html>"
      true
  """
  @spec html(t) :: {:ok, String.t()} | {:error, Error.t()}
  def html(chart) do
    with {:ok, %{title: title, html: html}} <- check(chart),
         do: {:ok, IO.iodata_to_binary(Page.document(title, html))}
  end

  @doc """
  Writes the chart to a file and returns `:ok`: as an HTML page if the name ends in `.html`, as SVG if it ends in `.svg`.

  Errors: `:invalid_argument` for another extension, and `:file` with the reason of the operating system.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_chart.html")
      iex> ExCubecl.Memory.Chart.save(ExCubecl.Memory.Chart.map!(), path)
      :ok
      iex> File.rm!(path)
      iex> {:error, error} = ExCubecl.Memory.Chart.save(ExCubecl.Memory.Chart.map!(), "chart.png")
      iex> error.reason
      :invalid_argument
  """
  @spec save(t, Path.t()) :: :ok | {:error, Error.t()}
  def save(chart, path) when is_binary(path) do
    with {:ok, text} <- as(String.downcase(Path.extname(path)), chart, path),
         {:error, reason} when is_atom(reason) <- File.write(path, text),
         do: Error.new(:file, operation: :write, path: path, posix: reason)
  end

  def save(_chart, path), do: Arguments.invalid(:path, path, "the name of a file")

  defp as(".html", chart, _path), do: html(chart)
  defp as(".svg", chart, _path), do: svg(chart)

  defp as(_, _chart, path),
    do: Arguments.invalid(:path, path, "a name that ends in .html or .svg")

  defp check(%__MODULE__{title: title, svg: svg, html: html} = chart)
       when is_binary(title) and is_list(svg) and is_list(html),
       do: {:ok, chart}

  defp check(other), do: Arguments.invalid(:chart, other, "an %ExCubecl.Memory.Chart{}")
end
