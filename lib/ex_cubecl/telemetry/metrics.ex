# Compiled if Telemetry.Metrics is available.
if Code.ensure_loaded?(Telemetry.Metrics) do
  defmodule ExCubecl.Telemetry.Metrics do
    @moduledoc """
    Definitions for `Telemetry.Metrics` of the events of `ExCubecl.Telemetry`. The module exists where `:telemetry_metrics` is a dependency.

    In a Phoenix application add them to the metrics of its telemetry module; `Phoenix.LiveDashboard` and other reporters show them:

        def metrics do
          ExCubecl.Telemetry.Metrics.all() ++ [summary("phoenix.endpoint.stop.duration", unit: {:native, :millisecond})]
        end

    The live and reserved bytes are measured periodically by `:telemetry_poller`:

        {:telemetry_poller, measurements: [{ExCubecl.Telemetry, :measure_memory, []}], period: 5_000}

    Tags are strings: the device as `"vulkan:0"`, or `"several"`, and the name of a kernel or of an operation of Nx. Bytes are
    counted as megabytes, durations as microseconds.
    """

    import Telemetry.Metrics

    @doc "The list of all definitions."
    @spec all() :: [Telemetry.Metrics.t()]
    def all, do: memory() ++ transfers() ++ kernels()

    @doc "Memory: live, reserved, peak, allocated and freed bytes, refused allocations, collections of garbage."
    @spec memory() :: [Telemetry.Metrics.t()]
    def memory do
      [
        last_value("ex_cubecl.memory.live_bytes", bytes()),
        last_value("ex_cubecl.memory.reserved_bytes", bytes()),
        last_value("ex_cubecl.memory.peak_bytes", bytes()),
        sum("ex_cubecl.allocate.bytes", bytes()),
        sum("ex_cubecl.free.bytes", bytes()),
        sum("ex_cubecl.free_missed.count", tagged([])),
        counter("ex_cubecl.limit.bytes", tagged([:device, :reason])),
        counter("ex_cubecl.reclaim.bytes", tagged([:device, :reason])),
        summary("ex_cubecl.reclaim.duration", duration())
      ]
    end

    @doc "Bytes that were written, read, filled and copied, and how long that took."
    @spec transfers() :: [Telemetry.Metrics.t()]
    def transfers do
      for event <- ["upload", "read", "fill", "copy"],
          metric <- [
            sum("ex_cubecl.#{event}.bytes", bytes()),
            summary("ex_cubecl.#{event}.duration", duration())
          ],
          do: metric
    end

    @doc "Launches and compilations of kernels by name, the time of devices that is measured, operations of Nx that ran on the host."
    @spec kernels() :: [Telemetry.Metrics.t()]
    def kernels do
      [
        counter("ex_cubecl.launch.bytes", tagged([:device, :kernel])),
        summary("ex_cubecl.launch.duration", duration([:device, :kernel])),
        sum("ex_cubecl.batch.count", tagged([:device])),
        summary("ex_cubecl.compile.duration", duration([:device, :kernel])),
        summary("ex_cubecl.profile.device_time", duration()),
        sum("ex_cubecl.fallback.count", tagged([:device, :operation]))
      ]
    end

    defp bytes, do: tagged([:device]) ++ [unit: {:byte, :megabyte}]

    defp duration(tags \\ [:device]), do: tagged(tags) ++ [unit: {:native, :microsecond}]

    defp tagged(tags), do: [tags: tags, tag_values: &__MODULE__.tag_values/1]

    @doc false
    # Reporters make strings of tags, which a device as a tuple does not have.
    def tag_values(metadata), do: Map.new(metadata, fn {key, value} -> {key, tag(key, value)} end)

    defp tag(:device, {runtime, index}), do: "#{runtime}:#{index}"
    defp tag(:device, nil), do: "several"
    defp tag(_key, value), do: value
  end
end
