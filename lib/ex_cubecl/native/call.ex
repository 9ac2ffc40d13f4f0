defmodule ExCubecl.Native.Call do
  @moduledoc false
  # Functions whose NIF queues the call for a thread of the native library and returns at once. The result
  # arrives as a message `{tag, result}`, so that no scheduler waits for a device.

  @doc """
  Defines a function that calls the NIF of the same name, which takes a tag before its arguments.

  A result that needs no device is returned by the NIF. The tag is created in the function that receives it: the VM then
  skips all messages that were in the mailbox before it.
  """
  defmacro call({name, _, arguments}) do
    quote do
      def unquote(name)(unquote_splicing(arguments)), do: unquote(queued(name, arguments))

      def unquote(name)(_tag, unquote_splicing(unused(arguments))), do: missing()
    end
  end

  @doc """
  As `call/1`, but the function first calls the NIF that does not block: for `kernel_run` this is `kernel_try_run`. Only if that returns
  `{:ok, nil}`, because it would block, the call is queued.
  """
  defmacro try_call({name, _, arguments}) do
    attempt = try_name(name)

    quote do
      def unquote(name)(unquote_splicing(arguments)) do
        with {:ok, nil} <- unquote(attempt)(unquote_splicing(arguments)),
             do: unquote(queued(name, arguments))
      end

      def unquote(name)(_tag, unquote_splicing(unused(arguments))), do: missing()
      def unquote(attempt)(unquote_splicing(unused(arguments))), do: missing()
    end
  end

  defp queued(name, arguments) do
    quote do
      tag = make_ref()

      case unquote(name)(tag, unquote_splicing(arguments)) do
        {:ok, :pending} ->
          receive do
            {^tag, result} -> result
          end

        result ->
          result
      end
    end
  end

  defp unused(arguments),
    do: for({argument, _, context} <- arguments, do: {:"_#{argument}", [], context})

  defp try_name(name) do
    [module, function] = name |> Atom.to_string() |> String.split("_", parts: 2)
    :"#{module}_try_#{function}"
  end
end
