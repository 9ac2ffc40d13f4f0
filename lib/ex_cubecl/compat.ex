defmodule ExCubecl.Compat do
  @moduledoc """
  The calls of the Hex package `ex_cubecl` that this library keeps beside its own: the description and the memory of the default device, and
  element-wise kernels by name. `ExCubecl` has them under the same names, so that code written for that package runs unchanged.

  New code uses `ExCubecl.Device`, `ExCubecl.Memory`, `ExCubecl.Ops` and `ExCubecl.Kernel`, which have more. The calls for buffers, such as
  `ExCubecl.buffer/3` and `ExCubecl.read/1`, are the same in both packages.
  """

  use ExCubecl.Error.Bang

  require ExCubecl.Kernel

  alias ExCubecl.{Buffer, Device, Error, Kernel, Memory}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Definition

  @doc """
  Returns `{:ok, count}`, the number of devices; zero if there is no device.

      iex> {:ok, count} = ExCubecl.Compat.device_count()
      iex> count >= 1
      true
  """
  @spec device_count() :: {:ok, non_neg_integer} | {:error, Error.t()}
  def device_count do
    case Device.list() do
      {:ok, devices} -> {:ok, length(devices)}
      {:error, %Error{reason: :no_device}} -> {:ok, 0}
      {:error, error} -> {:error, error}
    end
  end

  @doc """
  Returns `{:ok, map}` with the description of the default device.

  The keys are `:backend` (its runtime), `:device_type` (its kind), `:device_name`, `:driver`,
  `:total_memory` (bytes, or `nil` if the driver does not report it), `:max_buffer_size`, `:dtypes`
  and `:id`.

      iex> {:ok, info} = ExCubecl.Compat.device_info()
      iex> info.backend in [:vulkan, :metal, :dx12, :cuda]
      true
  """
  @spec device_info() :: {:ok, map} | {:error, Error.t()}
  def device_info do
    with {:ok, device} <- Device.info(nil) do
      {:ok,
       %{
         id: device.id,
         backend: device.runtime,
         device_type: device.kind,
         device_name: device.name,
         driver: device.driver,
         total_memory: device.total_memory,
         max_buffer_size: device.max_buffer_size,
         dtypes: device.dtypes
       }}
    end
  end

  @doc """
  Returns `{:ok, %{used: bytes, total: bytes}}` of the default device: the bytes of live buffers, and
  the total memory of the device, `nil` if its driver does not report it.

      iex> {:ok, %{used: used, total: _}} = ExCubecl.Compat.memory_info()
      iex> used >= 0
      true
  """
  @spec memory_info() ::
          {:ok, %{used: non_neg_integer, total: pos_integer | nil}} | {:error, Error.t()}
  def memory_info do
    with {:ok, usage} <- Memory.usage(),
         {:ok, total} <- Memory.total(),
         do: {:ok, %{used: usage.live_bytes, total: total}}
  end

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

  @names @kernels |> Map.keys() |> Enum.sort()

  @doc """
  Returns `{:ok, names}` of the element-wise and activation kernels that `run_kernel/4` accepts.

      iex> {:ok, names} = ExCubecl.Compat.kernels()
      iex> "elementwise_add" in names
      true
  """
  @spec kernels() :: {:ok, [String.t()]}
  def kernels, do: {:ok, @names}

  @doc """
  Queues a kernel of `kernels/0` that reads `inputs` and writes `output`, and returns `{:ok, id}`.

  Every later call sees what the kernel writes, so the caller does not need to wait for it; the id is
  only for logs. `params` is `%{}`, because none of these kernels has parameters.

  Errors: `:invalid_argument` for another name or other inputs, and those of `ExCubecl.Kernel.run/3`.

      iex> a = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
      iex> output = ExCubecl.buffer!([0.0, 0.0], [2], :f32)
      iex> {:ok, _id} = ExCubecl.Compat.run_kernel("elementwise_add", [a, a], output)
      iex> ExCubecl.to_list!(output)
      [2.0, 4.0]
  """
  @spec run_kernel(String.t(), [Buffer.t()], Buffer.t(), map) ::
          {:ok, pos_integer} | {:error, Error.t()}
  def run_kernel(name, inputs, output, params \\ %{}) do
    with {:ok, kernel} <- find(name),
         :ok <- no_params(params),
         {:ok, inputs} <- inputs(inputs),
         :ok <- Kernel.run(kernel, inputs, into: output),
         do: {:ok, System.unique_integer([:positive])}
  end

  defp find(name) do
    with :error <- Map.fetch(@kernels, name),
         do: Arguments.invalid(:name, name, "one of #{Enum.join(@names, ", ")}")
  end

  defp no_params(params) when params == %{}, do: :ok
  defp no_params(params), do: Arguments.invalid(:params, params, "%{}: these kernels have none")

  defp inputs(inputs) do
    if is_list(inputs) and not List.improper?(inputs),
      do: {:ok, inputs},
      else: Arguments.invalid(:inputs, inputs, "a list of buffers")
  end
end
