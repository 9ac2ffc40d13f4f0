defmodule ExCubecl.Case do
  @moduledoc false
  # Helpers of all tests: the memory accounting of the default device, and complete garbage collection.

  use ExUnit.CaseTemplate

  using do
    quote do
      import ExCubecl.Case
      alias ExCubecl.{Buffer, Device, Error, Memory}
    end
  end

  @doc "The reason of an error; asserts that its message is readable."
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

  @doc "Waits until `live/1` returns `expected`, because destructors run after a garbage collection."
  def eventually(expected, device \\ nil, tries \\ 6000) do
    :erlang.garbage_collect()
    :erlang.yield()
    live = live(device)

    cond do
      live == expected ->
        :ok

      tries == 0 ->
        ExUnit.Assertions.flunk("live: #{inspect(live)}, expected: #{inspect(expected)}")

      true ->
        Process.sleep(10) && eventually(expected, device, tries - 1)
    end
  end

  @doc """
  Live bytes and buffers after all remains of earlier tests are freed: their garbage in any process, the heaps of
  processes that have just exited, of which no message notifies, and what queued work of the device still holds.
  """
  def settled(device \\ nil) do
    _ = ExCubecl.Device.synchronize(device)
    settled(device, nil, 0)
  end

  defp settled(device, last, same) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Process.sleep(5)

    case live(device) do
      ^last when same == 5 -> last
      ^last -> settled(device, last, same + 1)
      other -> settled(device, other, 0)
    end
  end

  @doc "Empties the cache of kernels, so that it evicts none while a test counts the kernels that are compiled."
  def empty_kernel_cache, do: :ets.delete_all_objects(ExCubecl.Kernel.Cache)

  @doc "Simulates a Livebook runtime, which is detected by a module of its name, and in which there is no terminal, until the test ends."
  def in_livebook(delay) do
    Application.put_env(:ex_cubecl, :progress_after, delay)
    Code.compile_string("defmodule Livebook.Runtime.Evaluator, do: nil")

    ExUnit.Callbacks.on_exit(fn ->
      Application.delete_env(:ex_cubecl, :progress_after)
      :code.purge(Livebook.Runtime.Evaluator)
      :code.delete(Livebook.Runtime.Evaluator)
    end)
  end

  @doc "Waits until `check` returns true, for events without a message."
  def until(check, tries \\ 12_000) do
    cond do
      check.() -> :ok
      tries == 0 -> ExUnit.Assertions.flunk("it did not happen")
      true -> Process.sleep(5) && until(check, tries - 1)
    end
  end

  @doc "Live bytes and live buffers of a device, or of the default device."
  def live(device \\ nil) do
    usage = ExCubecl.Memory.usage!(device: device)
    {usage.live_bytes, usage.live_buffers}
  end

  @doc "Runs a script in a separate VM; returns its standard output, its standard error and its exit status."
  def in_own_vm(script, env, before \\ "") do
    path =
      Path.join(
        System.tmp_dir!(),
        "ex_cubecl_#{System.pid()}_#{System.unique_integer([:positive])}.err"
      )

    paths =
      Enum.flat_map(
        :code.get_path(),
        &if(to_string(&1) =~ "ex_cubecl", do: ["-pa", to_string(&1)], else: [])
      )

    # Mesa prints a warning if it is not set.
    runtime_dir = System.get_env("XDG_RUNTIME_DIR") || System.tmp_dir!()
    env = Map.merge(%{"XDG_RUNTIME_DIR" => runtime_dir}, Map.new(env))
    command = ~s(#{before}exec elixir "$@" 2>#{path})
    {out, status} = System.cmd("sh", ["-c", command, "sh" | paths] ++ ["-e", script], env: env)
    errors = File.read!(path)
    File.rm(path)
    {out, errors, status}
  end
end
