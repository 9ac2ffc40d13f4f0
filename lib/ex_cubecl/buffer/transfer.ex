defmodule ExCubecl.Buffer.Transfer do
  @moduledoc false
  # Asynchronous reads, whose result arrives as a message `{transfer, result}`. `ExCubecl.Buffer.read_async/1` and
  # `await/2` are the public functions.

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Error.Arguments

  @type t :: reference

  @doc "Starts a read of `count` elements, whose result is sent to the calling process."
  @spec start(reference, non_neg_integer) :: {:ok, t} | {:error, Error.t()}
  def start(ref, count) do
    # The native side does not depend on the struct of the error: it fills in this template.
    template = %Error{reason: nil}
    Error.from_native(fn -> Native.buffer_read_async(ref, template, 0, count) end)
  end

  @spec await(t, timeout) :: {:ok, binary} | {:error, Error.t()}
  def await(transfer, timeout) when is_reference(transfer) do
    with {:ok, timeout} <- Arguments.timeout(timeout),
         :ok <- Error.from_native(fn -> Native.transfer_claim(transfer) end) do
      wait(transfer, timeout)
    else
      {:error, %{details: %{argument: :reference}}} -> invalid(transfer)
      error -> error
    end
  end

  def await(other, _timeout), do: invalid(other)

  defp invalid(other),
    do: Arguments.invalid(:transfer, other, "what ExCubecl.Buffer.read_async/1 returned")

  defp wait(transfer, timeout) do
    receive do
      {^transfer, result} -> result
    after
      timeout -> give_up(transfer, timeout)
    end
  end

  # The result may have arrived before the cancellation; it must not stay in the mailbox.
  defp give_up(transfer, timeout) do
    Native.transfer_cancel(transfer)

    receive do
      {^transfer, result} -> result
    after
      0 -> Error.new(:timeout, timeout: timeout)
    end
  end
end
