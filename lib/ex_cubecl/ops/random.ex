defmodule ExCubecl.Ops.Random do
  @moduledoc false
  # Random numbers: each is a hash of the seed and its index.

  alias ExCubecl.{Buffer, Device}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.Kernels

  def uniform(shape, seed, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:low, :high, :device]),
         {:ok, seed} <- seed(seed),
         {:ok, low} <- float(:low, Keyword.get(opts, :low, 0.0)),
         {:ok, high} <- float(:high, Keyword.get(opts, :high, 1.0)),
         do: drawn(shape, seed, 1, low, high, opts)
  end

  def normal(shape, seed, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:mean, :deviation, :device]),
         {:ok, seed} <- seed(seed),
         {:ok, mean} <- float(:mean, Keyword.get(opts, :mean, 0.0)),
         {:ok, deviation} <- float(:deviation, Keyword.get(opts, :deviation, 1.0)),
         {:ok, u} <- drawn(shape, seed, 2, 0.0, 1.0, opts),
         {:ok, v} <- drawn(shape, seed, 3, 0.0, 1.0, opts),
         do: Kernels.normal(u, v, mean, deviation)
  end

  defp drawn(shape, seed, salt, low, high, opts) do
    with {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, out} <- Buffer.empty(shape, :f32, device: id),
         :ok <- Kernels.uniform(seed, salt, low, high, out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  defp seed(seed) when is_integer(seed) and seed in 0..0x7FFF_FFFF, do: {:ok, seed}
  defp seed(other), do: Arguments.invalid(:seed, other, "an integer from 0 to 2,147,483,647")

  defp float(_name, number) when is_number(number), do: {:ok, number / 1}
  defp float(name, other), do: Arguments.invalid(name, other, "a number")
end
