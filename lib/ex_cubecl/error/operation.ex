defmodule ExCubecl.Error.Operation do
  @moduledoc false
  # `use ExCubecl.Error.Operation` in a module puts the name of the function that was called into its errors, and the name of the argument where the function that found the error only
  # knows it as a buffer. It stands before `use ExCubecl.Error.Bang`, whose twins call these functions.

  alias ExCubecl.Error
  alias ExCubecl.Error.Bang

  defmacro __using__(_opts), do: quote(do: @before_compile(ExCubecl.Error.Operation))

  defmacro __before_compile__(env) do
    for {:spec, spec, _} <- Enum.reverse(Module.get_attribute(env.module, :spec)),
        {name, arity} = Bang.function(spec) do
      args = Bang.arguments(env.module, name, arity)
      names = for {name, _, _} <- args, do: name

      quote do
        defoverridable [{unquote(name), unquote(arity)}]

        def unquote(name)(unquote_splicing(args)) do
          case super(unquote_splicing(args)) do
            {:error, error} ->
              values = Enum.zip(unquote(names), [unquote_splicing(args)])
              {:error, ExCubecl.Error.Operation.named(error, unquote(name), values)}

            result ->
              result
          end
        end
      end
    end
  end

  @doc """
  The error with the function as `:function`, if it does not name it as its operation or kernel, and with the name of the argument. `args` has the arguments
  by name.
  """
  @spec named(Error.t(), atom, keyword) :: Error.t()
  def named(%Error{details: %{operation: name}} = error, name, _args), do: error
  def named(%Error{details: %{kernel: name}} = error, name, _args), do: error

  def named(%Error{details: details} = error, name, args),
    do: %{error | details: details |> argument(args) |> Map.put(:function, name)}

  # The arguments of other functions, such as those of kernels, have their names.
  defp argument(%{argument: :buffer, value: value} = details, args) do
    case Enum.find_value(args, &found(&1, value)) do
      nil -> details
      name -> %{details | argument: name}
    end
  end

  defp argument(details, _args), do: details

  defp found({name, value}, value), do: name

  defp found({name, list}, value) when is_list(list) do
    at = if not List.improper?(list), do: Enum.find_index(list, &(&1 === value))
    at && "#{name}[#{at}]"
  end

  defp found(_other, _value), do: nil
end
