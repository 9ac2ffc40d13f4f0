defmodule ExCubecl.Kernel.CompileErrors do
  @moduledoc false
  # Raises a CompileError, with its line, for code that is not valid in a kernel.

  @spec fail(map, keyword | integer, String.t()) :: no_return
  def fail(scope, meta, text) do
    line = if is_list(meta), do: meta[:line] || scope.line, else: meta
    raise CompileError, file: scope.file, line: line, description: text
  end
end
