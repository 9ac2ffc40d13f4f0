defmodule ExCubecl.NxLibraries do
  # Where compiled Nx is: a dependency, or directories of OTP applications (nx/ebin, complex/ebin, telemetry/ebin) that
  # ERL_LIBS or EX_CUBECL_ERL_LIBS name. The tests never fetch or compile Nx.

  @applications [:nx, :complex, :telemetry]

  @doc "The directories that hold the applications, for ERL_LIBS; `nil` if one of them is missing."
  def directories do
    found = for name <- @applications, do: Enum.find(candidates(), &holds?(&1, name))
    if Enum.all?(found), do: Enum.uniq(found)
  end

  def why_not,
    do: "no compiled Nx in dependencies, ERL_LIBS, or #{Enum.join(own(), " and ")}"

  @doc "Whether Nx was loadable while the library was compiled, so that its modules for Nx are part of it."
  def dependency?, do: Code.ensure_loaded?(ExCubecl.Nx)

  defp candidates do
    loaded = for name <- @applications, is_list(:code.lib_dir(name)), do: parent(name)
    loaded ++ named("ERL_LIBS") ++ own()
  end

  defp parent(name), do: name |> :code.lib_dir() |> to_string() |> Path.dirname()

  defp own do
    with [] <- named("EX_CUBECL_ERL_LIBS") do
      cache = System.get_env("XDG_CACHE_HOME") || Path.expand("~/.cache")
      [Path.join([cache, "ex_cubecl/erl_libs", System.version()])]
    end
  end

  defp named(variable) do
    separator = if match?({:win32, _}, :os.type()), do: ";", else: ":"
    String.split(System.get_env(variable) || "", separator, trim: true)
  end

  defp holds?(directory, name), do: File.regular?("#{directory}/#{name}/ebin/#{name}.app")
end
