defmodule Mix.Tasks.ExCubecl.Top do
  @shortdoc "Shows live device memory and kernels in the terminal: devices, owners, tags, launches per second"

  @moduledoc """
  Shows which processes own device memory and which kernels run, updated each second, until Ctrl+C.

      mix ex_cubecl.top --node app@host --cookie secret    # a running node
      mix ex_cubecl.top --run train.exs                    # a script, run in this VM
      mix ex_cubecl.top --app                              # the application of this project, run in this VM

  Without one of these it lists the nodes of this machine and ends.

  In the bar `|` is live memory and `.` the peak; a full bar is the limit of the device, or the reserved memory. `queue wait` is the time
  that a call waits for the device now. Kernels are counted since the VM started, and for each second. Operations of Nx that ran on the
  host, because the device cannot run them, are listed with their types.

  ## Options

    * `--node` - the node to show; it runs ExCubecl
    * `--cookie` - the cookie of the node, unless it is in `~/.erlang.cookie`
    * `--run` - a script to run in this VM and to show; the task ends with it
    * `--app` - starts the application of this project in this VM, and shows it
    * `--every` - milliseconds between two updates, 1000 by default
    * `--once` - shows the state once, without clearing the screen; alone it implies `--app`
  """

  use Mix.Task

  alias ExCubecl.Dashboard.Top

  # Of the application only the configuration: it may run already, on the node that is shown.
  @requirements ["app.config"]
  @switches [
    node: :string,
    cookie: :string,
    run: :string,
    app: :boolean,
    every: :integer,
    once: :boolean
  ]

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
    Mix.Task.run("app.start")
    task = Task.async(fn -> evaluate(path) end)
    watch(&Top.snapshot/0, node(), opts, fn -> Process.alive?(task.pid) end)

    with {kind, reason, stacktrace} <- Task.await(task, :infinity),
         do: :erlang.raise(kind, reason, stacktrace)
  end

  defp look(opts) do
    if opts[:app] || opts[:once] do
      Mix.Task.run("app.start")
      watch(&Top.snapshot/0, node(), opts, fn -> true end)
    else
      IO.puts(choices(:erl_epmd.names()))
    end
  end

  defp choices(names) do
    """
    #{nodes(names)}

    Choose what to show:
      mix ex_cubecl.top --node NAME@HOST    a running node (--cookie unless it is in ~/.erlang.cookie)
      mix ex_cubecl.top --run SCRIPT        a script, run in this VM
      mix ex_cubecl.top --app               the application of this project, run in this VM\
    """
  end

  defp nodes({:ok, [_ | _] = names}) do
    {:ok, host} = :inet.gethostname()
    lines = for {name, _port} <- names, do: "\n  #{name}@#{host}"
    "Nodes of this machine (of their hosts only the short name is known):#{lines}"
  end

  defp nodes(_), do: "No named Erlang node runs on this machine."

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
    start_epmd(200)

    with {:error, reason} <- Node.start(:"ex_cubecl_top_#{System.pid()}#{host(kind)}", kind) do
      Mix.raise(
        "this VM cannot become a node, because epmd does not run (is it in PATH?), or for another reason: " <>
          inspect(reason, limit: 5)
      )
    end
  end

  # A long name needs a host with a dot, which the name of this machine may not have. Only this node connects to the other one.
  defp host(:shortnames), do: ""

  defp host(:longnames) do
    host = to_string(:net_adm.localhost())
    if host =~ ".", do: "@#{host}", else: "@127.0.0.1"
  end

  # `iex --name` starts epmd, Mix does not. It listens only a moment after its command has returned.
  defp start_epmd(tries) do
    if tries > 0 and not match?({:ok, _}, :erl_epmd.names()) and System.find_executable("epmd") do
      System.cmd("epmd", ["-daemon"])
      Process.sleep(10)
      start_epmd(tries - 1)
    end
  end

  defp ask(node) do
    case Top.ask(node) do
      {:ok, snapshot} -> snapshot
      {:error, text} -> Mix.raise(text)
    end
  end

  defp watch(ask, node, opts, go_on?) do
    if opts[:once],
      do: print(ask.(), nil, node, ""),
      else: watch(ask, node, max(opts[:every] || 1000, 50), go_on?, nil)
  end

  defp watch(ask, node, every, go_on?, before) do
    snapshot = ask.()
    print(snapshot, before, node, cleared())
    Process.sleep(every)

    if go_on?.(),
      do: watch(ask, node, every, go_on?, snapshot),
      else: print(ask.(), snapshot, node, "\n")
  end

  # A file or a pipe gets one view below the other.
  defp cleared, do: if(IO.ANSI.enabled?(), do: IO.ANSI.home() <> IO.ANSI.clear(), else: "\n")

  # One write per screen, so that the screen does not flicker.
  defp print(snapshot, earlier, node, before),
    do:
      IO.write([before, Enum.intersperse(Top.draw(snapshot, earlier, node, width()), "\n"), "\n"])

  defp width do
    case :io.columns() do
      {:ok, columns} -> columns
      _ -> 120
    end
  end
end
