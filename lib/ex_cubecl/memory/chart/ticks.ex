defmodule ExCubecl.Memory.Chart.Ticks do
  @moduledoc false
  # Round ticks of the axes of a chart: a step is 1, 2 or 5 times a power of ten of one unit.

  # Units, each with the length of an axis from which on it is used. Fractions of a minute or an hour are hard to read.
  @binary for {name, power} <- Enum.with_index(~w(B KiB MiB GiB TiB PiB EiB)),
              do: {Integer.pow(1024, power), Integer.pow(1024, power), name}
  @time [{0, 1, "ms"}, {1000, 1000, "s"}, {300_000, 60_000, "min"}, {18_000_000, 3_600_000, "h"}]

  @doc """
  Ticks from zero to at least `most` bytes, with their labels, in one binary unit.

      iex> ExCubecl.Memory.Chart.Ticks.bytes(1_500_000)
      [{0.0, "0 MiB"}, {524288.0, "0.5 MiB"}, {1048576.0, "1 MiB"}, {1572864.0, "1.5 MiB"}]
  """
  @spec bytes(non_neg_integer) :: [{float, String.t()}]
  def bytes(most) do
    {unit, name} = unit(@binary, most)
    step = step(max(most, 4) / unit / 4, unit)
    last = ceil(max(most, 4) / unit / step)
    for n <- 0..last, do: tick(n, step, unit, name)
  end

  @doc """
  Ticks from zero to at most `most` milliseconds, with their labels.

      iex> ExCubecl.Memory.Chart.Ticks.milliseconds(2_300)
      [{0.0, "0 s"}, {500.0, "0.5 s"}, {1000.0, "1 s"}, {1500.0, "1.5 s"}, {2000.0, "2 s"}]
  """
  @spec milliseconds(non_neg_integer) :: [{float, String.t()}]
  def milliseconds(most) do
    {unit, name} = unit(@time, most)
    step = step(max(most, 5) / unit / 6, unit)
    for n <- 0..floor(most / unit / step), do: tick(n, step, unit, name)
  end

  defp unit(units, most) do
    {_from, unit, name} = units |> Enum.filter(&(elem(&1, 0) <= max(most, 1))) |> List.last()
    {unit, name}
  end

  # The smallest round step that is not below `least`, in units; no fraction of the unit 1.
  defp step(least, unit) do
    power = :math.pow(10, floor(:math.log10(least)))
    step = Enum.find([1, 2, 5, 10], &(&1 * power >= least * (1 - 1.0e-9))) * power
    if unit == 1, do: max(step, 1.0), else: step
  end

  defp tick(n, step, unit, name) do
    amount = n * step
    {amount * unit, "#{amount(amount, step)} #{name}"}
  end

  defp amount(amount, step) when step >= 1, do: Integer.to_string(round(amount))

  defp amount(amount, step) do
    decimals = ceil(-:math.log10(step) - 1.0e-9)
    text = :erlang.float_to_binary(amount / 1, decimals: decimals)
    text |> String.trim_trailing("0") |> String.trim_trailing(".")
  end
end
