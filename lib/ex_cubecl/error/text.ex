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
    shorten(text, @most)
  end

  @doc """
  The beginning of a text that quotes what a user gave, which may have any length.

      iex> ExCubecl.Error.Text.shorten("no definition of aaaa", 18)
      "no definition of a..."
  """
  @spec shorten(String.t(), pos_integer) :: String.t()
  def shorten(text, most) do
    if String.length(text) > most, do: String.slice(text, 0, most) <> "...", else: text
  end

  @doc ~S'''
      iex> {ExCubecl.Error.Text.count(1, "argument"), ExCubecl.Error.Text.count(3)}
      {"1 argument", "3 elements"}
  '''
  @spec count(integer, String.t()) :: String.t()
  def count(n, noun \\ "element")
  def count(1, noun), do: "1 #{noun}"
  def count(n, noun), do: "#{show(n)} #{noun}s"

  @units ~w(MiB GiB TiB PiB EiB)

  @doc """
  A number of bytes, from 1 MiB on also in a larger unit.

      iex> {ExCubecl.Error.Text.bytes(1000), ExCubecl.Error.Text.bytes(2_500_000_000)}
      {"1000 bytes", "2500000000 bytes (2.3 GiB)"}
  """
  @spec bytes(integer) :: String.t()
  def bytes(n) when n < 1_048_576, do: count(n, "byte")
  def bytes(n), do: "#{n} bytes (#{scaled(n / 1_048_576, @units)})"

  defp scaled(n, [unit | [_ | _] = units]) do
    if n < 1024, do: scaled(n, [unit]), else: scaled(n / 1024, units)
  end

  defp scaled(n, [unit]), do: "#{Float.round(n, 1)} #{unit}"

  @doc """
  The name of a device in any of its forms.

      iex> {ExCubecl.Error.Text.device({:cuda, 0}), ExCubecl.Error.Text.device({:a@host, {:cuda, 0}})}
      {"cuda:0", "cuda:0 of node a@host"}
  """
  @spec device(term) :: String.t()
  def device({runtime, index}) when is_atom(runtime) and is_integer(index),
    do: "#{word(runtime)}:#{show(index)}"

  def device({node, {_, _} = id}) when is_atom(node), do: "#{device(id)} of node #{word(node)}"

  def device({node, id} = other) when is_atom(node) and is_binary(id) do
    if String.contains?(Atom.to_string(node), "@"),
      do: "#{word(id)} of node #{word(node)}",
      else: show(other)
  end

  def device(other), do: show(other)

  @doc "An atom or a string, unquoted if it consists only of word characters and . : @ -"
  @spec word(atom | String.t()) :: String.t()
  def word(atom) when is_atom(atom), do: atom |> Atom.to_string() |> word()
  def word(text), do: if(text =~ ~r/\A[\w.:@-]{1,255}\z/u, do: text, else: show(text))
end
