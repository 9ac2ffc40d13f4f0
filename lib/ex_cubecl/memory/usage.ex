defmodule ExCubecl.Memory.Usage do
  @moduledoc false
  # The memory of devices of this node: usage, limits, reports.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Device, Error, Kernel, Native}
  alias ExCubecl.Error.Arguments

  def usage(opts), do: on(opts, &Native.memory_usage/1)
  def total(opts), do: on(opts, &Native.memory_total/1)
  def trim(opts), do: on(opts, &Native.memory_trim/1)
  def reset_peak(opts), do: on(opts, &Native.memory_reset_peak/1)

  def set_limit(bytes, opts) do
    with {:ok, bytes} <- limit(bytes), do: on(opts, &Native.memory_set_limit(&1, bytes))
  end

  defp limit(nil), do: {:ok, nil}

  defp limit(bytes) do
    with {:error, _} <- Arguments.index(:bytes, bytes),
         do:
           Arguments.invalid(
             :bytes,
             bytes,
             "a number of bytes, a non-negative integer below 2^64, or nil for no limit"
           )
  end

  def report(opts) do
    with {:ok, most, opts} <- most(opts, 10),
         {:ok, report} <- on(opts, &Native.memory_report(&1, most)),
         {:ok, kernels} <- Kernel.cache() do
      sums = %{by_owner: Map.new(report.by_owner), by_tag: Map.new(report.by_tag)}
      {:ok, report |> Map.merge(sums) |> Map.put(:kernels, kernels)}
    end
  end

  def map(opts) do
    with {:ok, most, opts} <- most(opts, 1000),
         {:ok, {pages, allocations}} <- on(opts, &Native.memory_map(&1, most)) do
      {:ok, %{pages: pages, allocations: Enum.filter(allocations, & &1.page)}}
    end
  end

  defp most(opts, default) do
    with {:ok, opts} <- Arguments.options(opts, [:most, :device]),
         {:ok, most} <- Arguments.index(:most, Keyword.get(opts, :most, default)),
         do: {:ok, most, Keyword.delete(opts, :most)}
  end

  defp on(opts, call) do
    with {:ok, opts} <- Arguments.options(opts, [:device]),
         {:ok, id} <- Device.resolve(opts[:device]),
         do: Error.from_native(fn -> call.(id) end)
  end
end
