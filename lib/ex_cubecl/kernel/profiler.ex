defmodule ExCubecl.Kernel.Profiler do
  @moduledoc false
  # Measures the time on the device while a function runs.

  alias ExCubecl.{Error, Native, Telemetry}

  def run(id, fun) do
    with {:ok, token} <- Error.from_native(fn -> Native.kernel_profile_start(id) end) do
      {result, measured, time} = measured(fun, id, token)

      with {:ok, {nanoseconds, clock}} <- measured do
        timing = %{device_time: nanoseconds, time: time, clock: clock}
        if Telemetry.on?(), do: tell(id, timing)
        {:ok, {result, timing}}
      end
    end
  end

  defp tell(id, %{device_time: device_time, time: time, clock: clock}) do
    measurements = %{device_time: native(device_time), duration: native(time)}
    Telemetry.execute(:profile, measurements, %{device: id, clock: clock})
  end

  defp native(nanoseconds), do: System.convert_time_unit(nanoseconds, :nanosecond, :native)

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
