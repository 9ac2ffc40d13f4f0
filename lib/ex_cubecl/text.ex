defmodule ExCubecl.Text do
  @moduledoc false
  # Terms and numbers as messages show them. Lists of small integers are shapes here, and never text.

  @doc "A term in a few words."
  @spec show(term) :: String.t()
  def show(term), do: inspect(term, charlists: :as_lists, limit: 10, printable_limit: 80)

  @doc ~S'''
      iex> {ExCubecl.Text.count(1, "argument"), ExCubecl.Text.count(3, "argument")}
      {"1 argument", "3 arguments"}
  '''
  @spec count(integer, String.t()) :: String.t()
  def count(1, noun), do: "1 #{noun}"
  def count(n, noun), do: "#{n} #{noun}s"
end
