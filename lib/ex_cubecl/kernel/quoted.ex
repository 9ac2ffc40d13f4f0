defmodule ExCubecl.Kernel.Quoted do
  @moduledoc false
  # Small questions about quoted code, for the parser and its parts.

  @doc "The lines of a body. Quoted code that was put together has blocks within blocks."
  def lines({:__block__, _, lines}), do: Enum.flat_map(lines, &lines/1)
  def lines(nil), do: []
  def lines(line), do: [line]

  # The files of this library.
  @library Path.expand("..", __DIR__)

  @doc "Whether code stands in this library, whose lines are of no use to its users."
  def in_library?(env), do: String.starts_with?(env.file, @library)

  @doc "The line of a node, as errors of a call tell it; 0 for none."
  def line(_meta, %{in_library: true}), do: 0
  def line(meta, state), do: meta[:line] || state.line

  def meta({_, meta, _}) when is_list(meta), do: meta
  def meta(_), do: []

  @doc "Whether a name has elements: an argument, or memory that a group shares."
  def memory?(name, state), do: name in state.args or List.keymember?(state.shared, name, 0)
end
