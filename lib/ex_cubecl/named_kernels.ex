defmodule ExCubecl.NamedKernels do
  @moduledoc false
  # The element-wise and activation kernels of the Hex package of this name, by their names there.

  require ExCubecl.Kernel

  alias ExCubecl.Kernel
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Definition

  @kernels for {name, kernel} <- %{
                 "elementwise_add" => Kernel.kernel(fn a, b -> a + b end),
                 "elementwise_sub" => Kernel.kernel(fn a, b -> a - b end),
                 "elementwise_mul" => Kernel.kernel(fn a, b -> a * b end),
                 "elementwise_div" => Kernel.kernel(fn a, b -> a / b end),
                 "relu" => Kernel.kernel(fn x -> max(x, 0) end),
                 "sigmoid" => Kernel.kernel(fn x -> 1 / (1 + exp(-x)) end),
                 "tanh" => Kernel.kernel(fn x -> tanh(x) end)
               },
               into: %{},
               do: {name, Definition.named(kernel, String.to_atom(name))}

  def names, do: @kernels |> Map.keys() |> Enum.sort()

  def run(name, inputs, output, params) do
    with {:ok, kernel} <- find(name),
         :ok <- no_params(params),
         {:ok, inputs} <- inputs(inputs),
         :ok <- Kernel.run(kernel, inputs, into: output),
         do: {:ok, System.unique_integer([:positive])}
  end

  defp find(name) do
    with :error <- Map.fetch(@kernels, name),
         do: Arguments.invalid(:name, name, "one of #{Enum.join(names(), ", ")}")
  end

  defp no_params(params) when params == %{}, do: :ok
  defp no_params(params), do: Arguments.invalid(:params, params, "%{}: these kernels have none")

  defp inputs(inputs) do
    if is_list(inputs) and not List.improper?(inputs),
      do: {:ok, inputs},
      else: Arguments.invalid(:inputs, inputs, "a list of buffers")
  end
end
