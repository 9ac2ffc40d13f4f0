defmodule ExCubecl.IntegrationTest do
  # Modules that are compiled only if other libraries are present, in separate VMs so that no other test loads these.
  use ExCubecl.Case, async: false

  @root Path.expand("../..", __DIR__)

  @tag :without_nx
  test "without Nx, Kino and Phoenix nothing of theirs is there" do
    refute Code.ensure_loaded?(ExCubecl.Nx)
    refute Code.ensure_loaded?(ExCubecl.Backend)
    refute Code.ensure_loaded?(Kino.Render.ExCubecl.Memory.Chart)
    refute Code.ensure_loaded?(ExCubecl.LiveDashboard)
    refute Code.ensure_loaded?(ExCubecl.Telemetry.Metrics)
  end

  # Mix compiles a dependency with the libraries in its own list alone.
  test "each library for which modules are compiled is an optional dependency" do
    apps = %{
      "Kino" => "kino",
      "Nx" => "nx",
      "Phoenix" => "phoenix_live_dashboard",
      "Telemetry" => "telemetry_metrics"
    }

    modules =
      for path <- Path.wildcard("#{@root}/lib/**/*.ex"),
          [_, module] <-
            Regex.scan(
              ~r/^ *if (?:.* and )?Code\.ensure_loaded\?\(([A-Z][\w.]+)\)/m,
              File.read!(path)
            ),
          uniq: true,
          do: module

    assert "Nx.Backend" in modules and "Phoenix.LiveDashboard.PageBuilder" in modules
    mix = File.read!("#{@root}/mix.exs")

    for module <- modules do
      app = Map.fetch!(apps, module |> String.split(".") |> hd())
      assert mix =~ ~r/[ \[]#{app}: "~> /, "#{module} is of :#{app}, which mix.exs does not name"
    end
  end

  # Defines the part of Kino that is used, as its documentation describes it.
  test "where Kino is, a chart shows itself" do
    script = """
    defprotocol Kino.Render do
      def to_livebook(value)
    end

    defmodule Kino.HTML do
      defstruct [:html]
      def new(html) when is_binary(html), do: %__MODULE__{html: html}
    end

    defimpl Kino.Render, for: Kino.HTML do
      def to_livebook(html), do: {:html, html.html}
    end

    Code.compile_file("#{@root}/lib/ex_cubecl/memory/chart/kino.ex")
    buffer = ExCubecl.Buffer.zeros!([5], :u8, tag: :seen)
    {:html, html} = Kino.Render.to_livebook(ExCubecl.Memory.Chart.map!())
    IO.puts(html =~ "<svg" and html =~ "tag :seen" and ExCubecl.Buffer.size!(buffer) == 5)
    """

    assert {"true\n", "", 0} = in_own_vm(script, [])
  end

  # Defines the functions of Telemetry.Metrics that are used; the result has what the library derives from a name.
  test "where Telemetry.Metrics is, each definition is of an event and a measurement that the documentation names" do
    script = """
    defmodule Telemetry.Metrics do
      for kind <- [:counter, :sum, :summary, :last_value] do
        def unquote(kind)(name, opts), do: {unquote(kind), name, opts}
      end
    end

    Code.compile_file("#{@root}/lib/ex_cubecl/telemetry/metrics.ex")

    for {kind, name, opts} <- ExCubecl.Telemetry.Metrics.all() do
      tags = opts[:tag_values].(%{device: {:vulkan, 3}, kernel: :add, operation: :tan, reason: :limit_exceeded})
      IO.puts(Enum.join([kind, name | Enum.map(opts[:tags], &tags[&1])], " "))
    end

    IO.inspect(ExCubecl.Telemetry.Metrics.tag_values(%{device: nil, kernel: "main"}))
    """

    {out, "", 0} = in_own_vm(script, [])
    lines = String.split(out, "\n", trim: true)
    assert "counter ex_cubecl.launch.bytes vulkan:3 add" in lines
    assert "sum ex_cubecl.fallback.count vulkan:3 tan" in lines
    assert List.last(lines) == ~s(%{device: "several", kernel: "main"})

    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(ExCubecl.Telemetry)

    documented =
      for [_, event, measurements] <-
            Regex.scan(~r/^\| `\[:ex_cubecl, :(\w+)\]` \| ([^|]*) \|/m, doc),
          [_, measurement] <- Regex.scan(~r/`(\w+)`/, measurements),
          do: "ex_cubecl.#{event}.#{measurement}"

    for line <- Enum.drop(lines, -1),
        [_kind, name | _] = String.split(line),
        do: assert(name in documented)
  end

  # Defines the part of Phoenix.LiveDashboard that is used without its templates. The page was tried with the library itself, too, in a browser
  # over its websocket.
  test "where Phoenix.LiveDashboard is, its page shows devices, and why it cannot" do
    script = """
    defmodule Phoenix.LiveDashboard.PageBuilder do
      @callback init(term) :: term
      @callback menu_link(term, map) :: term
      @callback mount(term, term, term) :: term
      @callback handle_refresh(term) :: term
      @callback render(map) :: term

      defmacro __using__(_) do
        quote do
          @behaviour Phoenix.LiveDashboard.PageBuilder
          import Phoenix.LiveDashboard.PageBuilder
        end
      end

      def assign(socket, values), do: %{socket | assigns: Map.merge(socket.assigns, Map.new(values))}
      defmacro sigil_H({:<<>>, _, [text]}, _), do: {text, quote(do: var!(assigns))}
    end

    Code.compile_file("#{@root}/lib/ex_cubecl/live_dashboard.ex")
    page = ExCubecl.LiveDashboard
    {:ok, _, [module: module]} = page.init([])
    IO.inspect({page.menu_link(%{}, %{modules: [module]}), page.menu_link(%{}, %{modules: []})})
    buffer = ExCubecl.Buffer.zeros!([5], :u8, tag: "<seen>")
    x = ExCubecl.buffer!([1.0], [1], :f32)
    ExCubecl.Ops.add!(x, x)
    {:ok, socket} = page.mount(%{}, %{}, %{assigns: %{page: %{node: node()}}})
    {:noreply, socket} = page.handle_refresh(socket)
    {text, %{error: nil, devices: [{device, picture} | _]}} = page.render(socket.assigns)
    rows = Enum.map(device.tables, &List.last(hd(&1.rows)))
    IO.inspect({text =~ "@devices", picture =~ "&lt;seen&gt;" and not (picture =~ "<seen>"), inspect("<seen>") in rows, "add" in rows})
    {:noreply, socket} = page.handle_refresh(put_in(socket.assigns.page.node, :gone@nowhere))
    IO.inspect({socket.assigns.devices, socket.assigns.error})
    ExCubecl.Buffer.size!(buffer)
    """

    {out, "", 0} = in_own_vm(script, [])

    assert out == """
           {{:ok, "ExCubecl"}, {:disabled, "ExCubecl"}}
           {true, true, true, true}
           {[], "gone@nowhere: the connection is gone"}
           """
  end
end
