defmodule ExCubecl.Peer do
  @moduledoc false
  # Other nodes on this machine, for tests.

  # The tests start and kill nodes in ways that a cluster should not, and the loggers of the nodes print to our terminal.
  @quiet ~w(-kernel prevent_overlapping_partitions false -kernel logger_level emergency)c

  @doc "Makes this VM a node; `false` if that is not possible."
  def distributed? do
    if Node.alive?() do
      true
    else
      :application.set_env(:kernel, :prevent_overlapping_partitions, false)
      if System.find_executable("epmd"), do: start_epmd()
      name = :"ex_cubecl_#{System.pid()}@127.0.0.1"
      match?({:ok, _}, :net_kernel.start([name, :longnames]))
    end
  end

  # The daemon listens only a moment after the command has returned.
  defp start_epmd(tries \\ 1_000) do
    System.cmd("epmd", ["-daemon"])

    unless match?({:ok, _}, :erl_epmd.names(~c"127.0.0.1")) or tries == 0 do
      Process.sleep(10)
      start_epmd(tries - 1)
    end
  end

  @doc "Starts a node that has the code of this one; `with_code: false` leaves ours out. With `survives: true` it goes on without a connection."
  def start(opts \\ []) do
    paths = if Keyword.get(opts, :with_code, true), do: :code.get_path(), else: elixir_only()
    args = Enum.flat_map(paths, &[~c"-pa", &1]) ++ [~c"-setcookie", cookie() | @quiet]
    name = ~c"peer_#{System.unique_integer([:positive])}"

    options = %{name: name, host: ~c"127.0.0.1", longnames: true, args: args}

    # Otherwise it is controlled through the connection of the nodes, and ends with it.
    options = if opts[:survives], do: Map.put(options, :connection, :standard_io), else: options

    {:ok, peer, node} = :peer.start(options)
    if opts[:survives], do: Node.connect(node)
    {peer, node}
  end

  def stop({peer, _node}) do
    :peer.stop(peer)
  catch
    :exit, _ -> :ok
  end

  @doc "Halts a node without cleanup, as if its machine lost power."
  def kill({_peer, node}), do: :rpc.cast(node, :erlang, :halt, [1, [flush: false]])

  @doc "Makes a buffer on a device and holds it without end; another node runs this function."
  def hold(device, parent) do
    buffer = ExCubecl.Buffer.zeros!([5_000], :u8, device: device)
    send(parent, :held)
    Process.sleep(:infinity)
    ExCubecl.Buffer.read(buffer)
  end

  defp elixir_only, do: Enum.reject(:code.get_path(), &(to_string(&1) =~ "ex_cubecl"))

  defp cookie, do: Atom.to_charlist(Node.get_cookie())
end
