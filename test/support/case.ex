defmodule ExCubecl.Case do
  @moduledoc false
  # What the tests share: the account of the default device, and garbage that is really gone.

  use ExUnit.CaseTemplate

  using do
    quote do
      import ExCubecl.Case
      alias ExCubecl.{Buffer, Device, Error, Memory}
    end
  end

  @doc "The reason of an error, whose message must be fit to be read."
  def reason({:error, %ExCubecl.Error{reason: reason} = error}) do
    message = Exception.message(error)
    true = String.printable?(message) and byte_size(message) > 10
    reason
  end

  @doc "Keeps a term until the process ends: a variable may be collected after its last use."
  def keep(term) do
    Process.put({__MODULE__, make_ref()}, term)
    term
  end

  @doc "Waits until the account stands at `expected`, for destructors run after a collection."
  def eventually(expected, tries \\ 2000) do
    :erlang.garbage_collect()
    :erlang.yield()

    cond do
      live() == expected ->
        :ok

      tries == 0 ->
        ExUnit.Assertions.flunk("live: #{inspect(live())}, expected: #{inspect(expected)}")

      true ->
        Process.sleep(10) && eventually(expected, tries - 1)
    end
  end

  @doc """
  Live bytes and buffers once what earlier tests left behind is gone: their garbage, in whatever
  process it is, and the heaps of those that have just ended, which nothing tells the end of.
  """
  def settled(last \\ nil, same \\ 0) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Process.sleep(5)

    case live() do
      ^last when same == 5 -> last
      ^last -> settled(last, same + 1)
      other -> settled(other, 0)
    end
  end

  @doc "Waits until `check` holds, for what no message tells of."
  def until(check, tries \\ 2000) do
    cond do
      check.() -> :ok
      tries == 0 -> ExUnit.Assertions.flunk("it did not happen")
      true -> Process.sleep(5) && until(check, tries - 1)
    end
  end

  @doc "Live bytes and live buffers of the default device."
  def live do
    usage = ExCubecl.Memory.usage!()
    {usage.live_bytes, usage.live_buffers}
  end

  @doc "Runs a script in a VM of its own; returns what it printed, and what it printed as errors."
  def in_own_vm(script, env, before \\ "") do
    path = Path.join(System.tmp_dir!(), "ex_cubecl_#{System.unique_integer([:positive])}.err")

    paths =
      Enum.flat_map(
        :code.get_path(),
        &if(to_string(&1) =~ "ex_cubecl", do: ["-pa", to_string(&1)], else: [])
      )

    # Mesa writes a line where it is not set.
    runtime_dir = System.get_env("XDG_RUNTIME_DIR") || System.tmp_dir!()
    env = Map.merge(%{"XDG_RUNTIME_DIR" => runtime_dir}, Map.new(env))
    command = ~s(#{before}exec elixir "$@" 2>#{path})
    {out, status} = System.cmd("sh", ["-c", command, "sh" | paths] ++ ["-e", script], env: env)
    errors = File.read!(path)
    File.rm(path)
    {out, errors, status}
  end
end
