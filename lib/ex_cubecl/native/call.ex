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
    unused = for {argument, _, context} <- arguments, do: {:"_#{argument}", [], context}

    quote do
      def unquote(name)(unquote_splicing(arguments)) do
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

      def unquote(name)(_tag, unquote_splicing(unused)), do: missing()
    end
  end
end
