defmodule Mix.Tasks.ExCubecl.Devices do
  @shortdoc "Lists the devices of this machine"

  @moduledoc """
  Lists the devices of this machine. A star marks the default device.

      mix ex_cubecl.devices

  The task opens none of them. If it finds none, `mix ex_cubecl.doctor` reports why.
  """

  use Mix.Task

  alias ExCubecl.Device
  alias ExCubecl.Memory.Chart.Svg

  @requirements ["app.config"]

  @impl true
  def run([]) do
    with {:ok, devices} <- Device.list(), {:ok, default} <- Device.default() do
      Enum.each(devices, &Mix.shell().info(line(&1, default)))
    else
      {:error, error} -> Mix.raise(Exception.message(error))
    end
  end

  def run(_args), do: Mix.raise("mix ex_cubecl.devices takes no arguments")

  defp line(%{id: {runtime, index}} = device, default) do
    star = if device.id == default, do: "*", else: " "
    memory = if device.total_memory, do: Svg.bytes(device.total_memory), else: "memory unknown"

    "#{star} #{String.pad_trailing("#{runtime}:#{index}", 10)} #{device.name}, #{kind(device.kind)}, #{memory}, " <>
      "buffers up to #{Svg.bytes(device.max_buffer_size)}, #{device.driver}"
  end

  defp kind(:cpu), do: "CPU"
  defp kind(kind), do: kind |> Atom.to_string() |> String.replace("_gpu", " GPU")
end
