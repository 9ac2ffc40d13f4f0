defmodule ExCubecl.Error.Text do
  @moduledoc false
  # Formats terms and numbers for messages. Lists of small integers are shapes here, never charlists.

  @most 400

  @doc """
  A term as short text.

      iex> ExCubecl.Error.Text.show([100, 101])
      "[100, 101]"
  """
  @spec show(term) :: String.t()
  def show(term) do
    text = inspect(term, charlists: :as_lists, limit: 10, printable_limit: 80)
    # An integer may have any number of digits.
    if String.length(text) > @most, do: String.slice(text, 0, @most) <> "...", else: text
  end

  @doc ~S'''
      iex> {ExCubecl.Error.Text.count(1, "argument"), ExCubecl.Error.Text.count(3, "argument")}
      {"1 argument", "3 arguments"}
  '''
  @spec count(integer, String.t()) :: String.t()
  def count(1, noun), do: "1 #{noun}"
  def count(n, noun), do: "#{n} #{noun}s"
end
