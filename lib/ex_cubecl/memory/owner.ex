defmodule ExCubecl.Memory.Owner do
  @moduledoc false
  # Describes the owners of allocations for people: a pid with the name, or the first function, of its process.

  @doc "The pid as text, with what is known about a process of this node."
  @spec describe(pid) :: String.t()
  def describe(pid) do
    case node(pid) == node() and Process.info(pid, [:registered_name, :dictionary]) do
      [registered_name: name, dictionary: _] when is_atom(name) ->
        "#{inspect(pid)} #{inspect(name)}"

      [registered_name: _, dictionary: dictionary] ->
        String.trim_trailing("#{inspect(pid)} #{label(dictionary)}")

      nil ->
        "#{inspect(pid)} has ended"

      false ->
        inspect(pid)
    end
  end

  defp label(dictionary) do
    case dictionary[:"$initial_call"] do
      {module, function, arity} -> Exception.format_mfa(module, function, arity)
      _ -> ""
    end
  end
end
