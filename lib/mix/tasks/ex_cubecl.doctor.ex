defmodule Mix.Tasks.ExCubecl.Doctor do
  @shortdoc "Says what is missing on this machine, and how to get it"

  @moduledoc """
  Looks for what each runtime needs, and tries each device: bytes there, a kernel, and back.

      mix ex_cubecl.doctor

  Drivers are tried in a VM of their own, so that one that crashes is found and named. The task fails
  where no device works.
  """

  use Mix.Task

  alias ExCubecl.Doctor

  @requirements ["app.config"]

  @impl true
  def run([]) do
    sections = Doctor.run()
    Enum.each(sections, &show/1)

    unless Doctor.well?(sections),
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
