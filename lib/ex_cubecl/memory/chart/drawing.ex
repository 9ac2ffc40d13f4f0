defmodule ExCubecl.Memory.Chart.Drawing do
  @moduledoc false
  # Draws charts of devices of this node: `{:ok, {title, svg}}`. Those of another node are drawn there.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Device, Memory}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.Chart.Svg

  @rows 60
  @most 5_000

  def timeline(opts) do
    with {:ok, opts} <- Arguments.options(opts, [:device]),
         {:ok, id} <- Device.existing(opts[:device]),
         {:ok, samples} <- Memory.timeline() do
      case Map.get(samples, id, []) do
        [] -> Arguments.invalid(:device, id, "one that ExCubecl.Memory.timeline/1 has recorded")
        samples -> {:ok, {"Memory of #{name(id)} over time", Svg.Timeline.draw(samples)}}
      end
    end
  end

  def map(opts) do
    with {:ok, opts} <- Arguments.options(opts, [:most, :device]),
         {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, map} <- Memory.map(device: id, most: Keyword.get(opts, :most, @most)),
         do: {:ok, {"Memory of #{name(id)}", Svg.Map.draw(map, @rows)}}
  end

  defp name({runtime, index} = id) do
    case Device.info(id) do
      {:ok, %{name: name}} -> "#{runtime}:#{index}, #{name}"
      {:error, _} -> "#{runtime}:#{index}"
    end
  end
end
