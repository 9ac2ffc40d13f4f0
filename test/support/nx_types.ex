defmodule ExCubecl.NxTypes do
  # The table of guides/nx.md of where operations of each type run. Runtimes are simulated: the device claims not to calculate with the types that they lack.

  @guide Path.expand("../../guides/nx.md", __DIR__)
  @begin "<!-- types by runtime: scripts/nx_types -->\n"
  @finish "<!-- end -->\n"

  @doc "The runtimes of the columns with the types that their kernels do not have."
  def runtimes do
    [
      {"CUDA, Vulkan with all types", []},
      {"Metal", [:f64]},
      {"DirectX 12", [:s8, :u8, :s16, :u16, :s64, :u64, :f64]}
    ]
  end

  @doc "The table in Markdown; `columns` are the rows of test/nx/types_table.exs for each runtime."
  def table(columns) do
    names = for {name, _types} <- runtimes(), do: name
    rows = columns |> Enum.zip() |> Enum.map(&Tuple.to_list/1)

    [
      line(["operations" | names]),
      line(List.duplicate("---", length(names) + 1)),
      for([{group, _} | _] = row <- rows, do: line([group | Enum.map(row, &cell/1)]))
    ]
    |> IO.iodata_to_binary()
  end

  defp line(cells), do: "| #{Enum.join(cells, " | ")} |\n"
  defp cell({_group, []}), do: "none"
  defp cell({_group, types}), do: "`#{Enum.join(types, " ")}`"

  def in_guide do
    [_, rest] = String.split(File.read!(@guide), @begin)
    rest |> String.split(@finish) |> hd()
  end

  @doc "Puts the table into the guide."
  def write(table) do
    [before, rest] = String.split(File.read!(@guide), @begin)
    [_old, behind] = String.split(rest, @finish)
    File.write!(@guide, before <> @begin <> table <> @finish <> behind)
  end
end
