defmodule ExCubecl.Kernel.Quoted do
  @moduledoc false
  # Helper functions for quoted code, for the parser and its modules.

  @doc "The lines of a body. Generated quoted code can have nested blocks."
  def lines({:__block__, _, lines}), do: Enum.flat_map(lines, &lines/1)
  def lines(nil), do: []
  def lines(line), do: [line]

  # The directory of this library's files.
  @library Path.expand("..", __DIR__)

  @doc "Whether code is in a file of this library. Its line numbers do not help users."
  def in_library?(env), do: String.starts_with?(env.file, @library)

  @doc "The line of a node for the errors of a call; 0 for none."
  def line(_meta, %{in_library: true}), do: 0
  def line(meta, scope), do: meta[:line] || scope.line

  def meta({_, meta, _}) when is_list(meta), do: meta
  def meta(_), do: []
end
