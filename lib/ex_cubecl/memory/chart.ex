defmodule ExCubecl.Memory.Chart do
  @moduledoc """
  Charts of a device's memory: its timeline, and the map of its pages and allocations.

  A chart is an SVG picture, alone or in an HTML page. It loads nothing from elsewhere, and it shows details of the
  element under the mouse pointer. Livebook renders a chart if Kino is loaded; `save/2` writes it to a file.

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
  alias ExCubecl.Memory.Chart.{Drawing, Svg}

  @enforce_keys [:title, :svg]
  defstruct [:title, :svg]

  @type t :: %__MODULE__{title: String.t(), svg: iodata}

  @doc """
  Returns `{:ok, chart}` of the live and reserved bytes of a device over time, as `ExCubecl.Memory.timeline/1`
  recorded them. `device:` is the device, by default the default device.

  Errors: `:unknown_device`, `:invalid_argument` if nothing was recorded.

      iex> ExCubecl.Memory.timeline(every: 5)
      iex> buffer = ExCubecl.Buffer.zeros!([1000], :f32)
      iex> Process.sleep(50)
      iex> ExCubecl.Memory.timeline(false)
      iex> {:ok, chart} = ExCubecl.Memory.Chart.timeline()
      iex> ExCubecl.Memory.Chart.svg!(chart) =~ "reserved"
      true
      iex> ExCubecl.size!(buffer)
      4000
  """
  @spec timeline(device: Memory.device()) :: {:ok, t} | {:error, Error.t()}
  def timeline(opts \\ []), do: drawn(&Drawing.timeline/1, opts)

  @doc """
  Returns `{:ok, chart}`, the map of a device: each page of memory with the allocations on it.

  A slab is a page that many buffers share; an idle page is kept for the next buffer of its size.
  Colours stand for tags, or for owners of allocations without a tag. `most:` is the number of allocations to
  draw, the largest first, 5,000 by default; `device:` is the device. The largest 60 pages are drawn.

      iex> {:ok, chart} = ExCubecl.Memory.Chart.map(most: 100)
      iex> chart.title =~ "Memory of"
      true
  """
  @spec map(most: non_neg_integer, device: Memory.device()) :: {:ok, t} | {:error, Error.t()}
  def map(opts \\ []), do: drawn(&Drawing.map/1, opts)

  defp drawn(fun, opts) do
    with {:ok, {title, svg}} <- Client.route_option(fun, [], opts),
         do: {:ok, %__MODULE__{title: title, svg: svg}}
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
    with {:ok, chart} <- check(chart), do: {:ok, IO.iodata_to_binary(page(chart))}
  end

  defp page(%{title: title, svg: svg}) do
    [
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>",
      Svg.escape(title),
      "</title></head><body style=\"margin:1.5em;font-family:sans-serif;background:#fff\"><h1 style=\"font-size:1.1em\">",
      Svg.escape(title),
      "</h1>",
      svg,
      "</body></html>\n"
    ]
  end

  @doc """
  Writes the chart to a file and returns `:ok`: as an HTML page if the name ends in `.html`, otherwise as SVG.

  Errors: `:invalid_argument` with the reason from the file system.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_chart.html")
      iex> ExCubecl.Memory.Chart.save(ExCubecl.Memory.Chart.map!(), path)
      :ok
      iex> File.rm!(path)
      :ok
  """
  @spec save(t, Path.t()) :: :ok | {:error, Error.t()}
  def save(chart, path) when is_binary(path) do
    with {:ok, text} <- if(Path.extname(path) == ".html", do: html(chart), else: svg(chart)),
         {:error, reason} when is_atom(reason) <- File.write(path, text),
         do: Arguments.invalid(:path, path, "a file to write (#{:file.format_error(reason)})")
  end

  def save(_chart, path), do: Arguments.invalid(:path, path, "the name of a file")

  defp check(%__MODULE__{title: title, svg: svg} = chart) when is_binary(title) and is_list(svg),
    do: {:ok, chart}

  defp check(other), do: Arguments.invalid(:chart, other, "an %ExCubecl.Memory.Chart{}")
end
