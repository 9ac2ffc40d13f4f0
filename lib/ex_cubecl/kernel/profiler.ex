defmodule ExCubecl.Kernel.Profiler do
  @moduledoc false
  # Measures the time on the device while a function runs.

  alias ExCubecl.{Error, Native}

  def run(id, fun) do
    with {:ok, token} <- Error.from_native(fn -> Native.kernel_profile_start(id) end) do
      {result, measured, time} = measured(fun, id, token)

      with {:ok, {nanoseconds, clock}} <- measured,
           do: {:ok, {result, %{device_time: nanoseconds, time: time, clock: clock}}}
    end
  end

  # The measurement on the device is stopped also when the function raises, throws or exits.
  defp measured(fun, id, token) do
    started = System.monotonic_time(:nanosecond)
    stop = fn -> Error.from_native(fn -> Native.kernel_profile_stop(id, token) end) end

    try do
      fun.()
    catch
      kind, reason ->
        stop.()
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result ->
        measured = stop.()
        {result, measured, System.monotonic_time(:nanosecond) - started}
    end
  end
end
