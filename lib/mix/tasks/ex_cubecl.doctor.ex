defmodule Mix.Tasks.ExCubecl.Doctor do
  @shortdoc "Reports what is missing on this machine, and how to get it"

  @moduledoc """
  Checks what each runtime needs, and tests each device: writes bytes, runs a kernel, reads the result.

      mix ex_cubecl.doctor

  Drivers are tested in a separate VM, so that the task can report a driver that crashes. The task fails if no device
  works.
  """

  use Mix.Task

  alias ExCubecl.Dashboard.Doctor

  @requirements ["app.config"]

  @impl true
  def run([]) do
    sections = Doctor.run()
    Enum.each(sections, &show/1)

    unless Doctor.healthy?(sections),
      do: Mix.raise("no device works on this machine: see what is missing above")
  end

  def run(_args), do: Mix.raise("mix ex_cubecl.doctor takes no arguments")

  defp show({title, checks}) do
    Mix.shell().info([:bright, title, :reset])
    Enum.each(checks, &Mix.shell().info(line(&1)))
  end

  defp line({:ok, text}), do: ["  ", :green, "ok       ", :reset, text]
  defp line({:missing, text}), do: ["  ", :red, "missing  ", :reset, text]
  defp line({:note, text}), do: ["  ", :faint, "note     ", :reset, text]
end
