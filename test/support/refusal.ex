defmodule ExCubecl.Refusal do
  @moduledoc false
  # Assertions on refused calls: an error has a reason, and its numbers are in the details and in a readable
  # message.

  import ExUnit.Assertions

  @doc """
  Asserts that a call was refused for this reason.

    * `:details` - keys and values that the details must contain
    * `:says` - text that the message must contain
  """
  def refused(result, reason, expected \\ []) do
    assert {:error, %ExCubecl.Error{} = error} = result
    message = Exception.message(error)
    assert {error.reason, message} == {reason, message}

    for {key, value} <- expected[:details] || [],
        do: assert({key, error.details[key]} == {key, value})

    for words <- List.wrap(expected[:says]), do: assert(message =~ to_string(words))
    assert String.printable?(message) and byte_size(message) > 10
    error
  end

  @doc "Asserts that a predicate or a function with a bang raised ExCubecl.Error, for this reason."
  def raises(reason, call) do
    error = assert_raise ExCubecl.Error, call
    assert error.reason == reason
  end
end
