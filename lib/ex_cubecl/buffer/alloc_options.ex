defmodule ExCubecl.Buffer.AllocOptions do
  @moduledoc false
  # The allocation options of a new buffer: a tag, the stacktrace (while allocations are traced), and whether
  # the buffer is long-lived. `nil` if none of them is set, the usual case.

  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  @type t :: nil | {binary | nil, binary | nil, boolean}

  @options [:tag, :allocation]
  @most_bytes 1024
  @most_frames 16
  @key {__MODULE__, :tracing}

  @doc "The option keys that `from/1` accepts."
  def options, do: @options

  @spec from(keyword) :: {:ok, t} | {:error, Error.t()}
  def from(opts) do
    tracing = tracing?()

    if opts == [] and not tracing do
      {:ok, nil}
    else
      with {:ok, tag} <- tag(opts[:tag]),
           {:ok, persistent} <- persistent(Keyword.get(opts, :allocation, :default)),
           do: {:ok, note(tag, if(tracing, do: trace()), persistent)}
    end
  end

  def set_tracing(on), do: :persistent_term.put(@key, on)

  def tracing?, do: :persistent_term.get(@key, false)

  defp note(nil, nil, false), do: nil
  defp note(tag, trace, persistent), do: {tag, trace, persistent}

  defp tag(nil), do: {:ok, nil}

  defp tag(term) do
    binary = :erlang.term_to_binary(term)

    if byte_size(binary) <= @most_bytes,
      do: {:ok, binary},
      else: Arguments.invalid(:tag, term, "a short term, such as an atom or a string")
  end

  defp persistent(:default), do: {:ok, false}
  defp persistent(:persistent), do: {:ok, true}

  defp persistent(other),
    do: Arguments.invalid(:allocation, other, ":default or :persistent")

  # Process.info/2 gives frames without arguments, which may be large; frames of ExCubecl are removed.
  defp trace do
    {:current_stacktrace, [_ | frames]} = Process.info(self(), :current_stacktrace)

    frames
    |> Enum.drop_while(fn {module, _, _, _} -> ours?(module) end)
    |> Enum.take(@most_frames)
    |> :erlang.term_to_binary()
  end

  defp ours?(module) do
    name = Atom.to_string(module)
    name == "Elixir.ExCubecl" or String.starts_with?(name, "Elixir.ExCubecl.")
  end
end
