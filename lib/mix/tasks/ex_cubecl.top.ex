defmodule Mix.Tasks.ExCubecl.Top do
  @shortdoc "Shows live device memory in the terminal: devices, live, peak, largest owners"

  @moduledoc """
  Shows which processes own device memory, updated each second, until Ctrl+C.

      mix ex_cubecl.top --node app@host --cookie secret    # a running node
      mix ex_cubecl.top --run train.exs                    # a script, run in this VM

  In the bar `|` is live memory and `.` the peak; a full bar is the limit of the device, or the reserved memory.

  ## Options

    * `--node` - the node to show; it runs ExCubecl
    * `--cookie` - the cookie of the node, unless it is in `~/.erlang.cookie`
    * `--run` - a script to run in this VM and to show; the task ends with it
    * `--every` - milliseconds between two updates, 1000 by default
    * `--once` - shows the memory once, without clearing the screen
  """

  use Mix.Task

  alias ExCubecl.Dashboard.Top

  @requirements ["app.start"]
  @switches [node: :string, cookie: :string, run: :string, every: :integer, once: :boolean]

  @impl true
  def run(args) do
    case OptionParser.parse(args, strict: @switches) do
      {opts, [], []} -> look(Map.new(opts))
      {_, [extra | _], _} -> Mix.raise("unexpected #{extra}; see mix help ex_cubecl.top")
      {_, _, [{switch, _} | _]} -> Mix.raise("bad option #{switch}; see mix help ex_cubecl.top")
    end
  end

  defp look(%{node: name} = opts) do
    node = connect(name, opts[:cookie])
    watch(fn -> ask(node) end, node, opts, fn -> true end)
  end

  defp look(%{run: path} = opts) do
    unless File.regular?(path), do: Mix.raise("there is no script #{path}")
    task = Task.async(fn -> evaluate(path) end)
    watch(&Top.snapshot/0, node(), opts, fn -> Process.alive?(task.pid) end)

    with {kind, reason, stacktrace} <- Task.await(task, :infinity),
         do: :erlang.raise(kind, reason, stacktrace)
  end

  defp look(opts), do: watch(&Top.snapshot/0, node(), Map.put(opts, :once, true), fn -> false end)

  # An exception of the script is raised again in the task process, so that it is printed below the last view.
  defp evaluate(path) do
    Code.eval_file(path)
    :ok
  catch
    kind, reason -> {kind, reason, __STACKTRACE__}
  end

  defp connect(name, cookie) do
    node = String.to_atom(name)
    unless Node.alive?(), do: start_node(if name =~ ~r/@.*\./, do: :longnames, else: :shortnames)

    if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

    unless Node.connect(node),
      do: Mix.raise("#{name} does not answer: check its name, that it runs, and the cookie")

    node
  end

  defp start_node(kind) do
    with {:error, reason} <- Node.start(:"ex_cubecl_top_#{System.pid()}", kind),
         do: Mix.raise("this node cannot be named (is epmd in PATH?): #{inspect(reason)}")
  end

  defp ask(node) do
    :erpc.call(node, Top, :snapshot, [], 5_000)
  rescue
    error in ErlangError -> Mix.raise("#{node}: #{explain(error.original)}")
  end

  defp explain({:erpc, :noconnection}), do: "the connection is gone"
  defp explain({:exception, :undef, _}), do: "it does not run this version of ExCubecl"
  defp explain(other), do: inspect(other)

  defp watch(ask, node, opts, go_on?) do
    if opts[:once] do
      print(ask.(), node, "")
    else
      print(ask.(), node, IO.ANSI.home() <> IO.ANSI.clear())
      Process.sleep(max(opts[:every] || 1000, 50))
      if go_on?.(), do: watch(ask, node, opts, go_on?), else: print(ask.(), node, "\n")
    end
  end

  # One write per screen, so that the screen does not flicker.
  defp print(snapshot, node, before),
    do: IO.write([before, Enum.intersperse(Top.draw(snapshot, node, width()), "\n"), "\n"])

  defp width do
    case :io.columns() do
      {:ok, columns} -> columns
      _ -> 120
    end
  end
end
