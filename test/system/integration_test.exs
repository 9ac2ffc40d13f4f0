defmodule ExCubecl.IntegrationTest do
  # Modules that are compiled only if other libraries are present, in separate VMs so that no other test loads these.
  use ExCubecl.Case, async: false

  @root Path.expand("../..", __DIR__)

  @tag :without_nx
  test "without Nx and Kino nothing of theirs is there" do
    refute Code.ensure_loaded?(ExCubecl.Nx)
    refute Code.ensure_loaded?(ExCubecl.Backend)
    refute Code.ensure_loaded?(Kino.Render.ExCubecl.Memory.Chart)
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
end
