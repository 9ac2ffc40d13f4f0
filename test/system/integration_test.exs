defmodule ExCubecl.IntegrationTest do
  # Modules that are compiled only if other libraries are present, in separate VMs so that no other test loads these.
  use ExCubecl.Case, async: false

  @root Path.expand("../..", __DIR__)

  test "without Nx and Kino nothing of theirs is there" do
    refute Code.ensure_loaded?(ExCubecl.Nx)
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

  # Run with NX_PATH: a checkout of Nx whose dependency `complex` was fetched into its `deps`.
  @tag :nx
  @tag timeout: 600_000
  test "tensors become buffers and come back" do
    script = ~S"""
    path = System.fetch_env!("NX_PATH")
    path = if File.dir?(path <> "/nx"), do: path <> "/nx", else: path
    Code.compiler_options(ignore_module_conflict: true)

    for library <- [path <> "/deps/complex", path] do
      files = Path.wildcard(library <> "/lib/**/*.ex") |> Enum.reject(&(&1 =~ "/mix/"))
      {:ok, _, _} = Kernel.ParallelCompiler.compile(files)
    end

    Application.put_env(:nx, :default_backend, {Nx.BinaryBackend, []})
    [{ExCubecl.Nx, _}] = Code.compile_file(System.fetch_env!("INTEGRATION"))

    types = [{:f, 32}, {:f, 64}, {:f, 16}, {:bf, 16}] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

    for type <- types, shape <- [{}, {1}, {2, 3}, {2, 1, 4}] do
      tensor = Nx.iota(shape, type: type)
      {:ok, buffer} = ExCubecl.Nx.from_tensor(tensor)
      {:ok, back} = ExCubecl.Nx.to_tensor(buffer)
      true = {back.type, back.shape, Nx.to_binary(back)} == {type, shape, Nx.to_binary(tensor)}
      true = ExCubecl.shape!(buffer) == Tuple.to_list(shape)
    end

    # Conversion gives the same bits as Nx, except that Nx does not round to bf16, and wraps floats around.
    odd = Nx.tensor([1.5, -1.0, 300.7, 65504.0, 3.0e38, -0.0], type: :f32)
    buffer = ExCubecl.Nx.from_tensor!(odd)
    for {type, dtype} <- [{{:f, 16}, :f16}, {{:f, 64}, :f64}] do
      converted = ExCubecl.Nx.to_tensor!(ExCubecl.Buffer.convert!(buffer, dtype))
      {_, same, same} = {dtype, Nx.to_binary(converted), Nx.to_binary(Nx.as_type(odd, type))}
    end

    named = Nx.iota({2, 2}, names: [:x, :y], type: :s32)
    true = ExCubecl.to_list!(ExCubecl.Nx.from_tensor!(named, tag: :nx)) == [[0, 1], [2, 3]]
    {:error, %{reason: :unsupported_dtype}} = ExCubecl.Nx.from_tensor(Nx.tensor(Complex.new(1, 2)))
    {:error, %{reason: :invalid_argument}} = ExCubecl.Nx.from_tensor([1, 2])
    {:error, %{reason: :invalid_argument}} = ExCubecl.Nx.from_tensor(Nx.vectorize(named, :v))
    {:error, %{reason: :invalid_argument}} = ExCubecl.Nx.to_tensor(:nothing)
    {:error, %{reason: :invalid_argument}} = ExCubecl.Nx.to_tensor(buffer, backend: Nx.BinaryBackend, x: 1)
    {:error, %{reason: :not_allocated}} = ExCubecl.Nx.to_tensor(ExCubecl.Buffer.empty!([1], :u8))
    true = Nx.to_flat_list(ExCubecl.Nx.to_tensor!(buffer, backend: Nx.BinaryBackend)) == Nx.to_flat_list(odd)
    IO.puts("agreed")
    """

    env = [{"INTEGRATION", Path.join(@root, "lib/ex_cubecl/nx.ex")}]
    {out, errors, status} = in_own_vm(script, env)
    assert {status, out =~ "agreed"} == {0, true}, errors
  end
end
