if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ComplexProduct do
    @moduledoc false
    # Products of complex numbers along axes, and in windows.

    alias ExCubecl.{Buffer, Error, Ops, View}
    alias ExCubecl.Nx.{ComplexFunctions, ComplexParts, Movement}
    alias ExCubecl.View.Strides

    @doc "The parts of the products of pairs along `axes`, all by default, as buffers of the shape `out`."
    def run(pairs, axes, out) do
      with {:ok, {a, b}} <- multiplied(columns(pairs, axes), nil),
           {:ok, a} <- reshaped(a, out),
           {:ok, b} <- reshaped(b, out),
           do: {:ok, [a, b]}
    end

    @doc "The parts of the products of the numbers in each window, as buffers of the shape `out`."
    def of_windows({a, b}, window, out, opts) do
      padding = for {low, high} <- opts[:padding], do: {low, high, 0}

      with {:ok, a} <- Ops.pad(a, 1.0, padding),
           {:ok, b} <- Ops.pad(b, 0.0, padding) do
        # The numbers at one place of all windows.
        at = fn buffer, place ->
          starts = for {n, dilation} <- Enum.zip(place, opts[:window_dilations]), do: n * dilation
          Strides.slice(View.new(buffer), starts, Tuple.to_list(out), opts[:strides])
        end

        {a, b} =
          window
          |> Tuple.to_list()
          |> places()
          |> Enum.map(&{at.(a, &1), at.(b, &1)})
          |> Enum.reduce(fn z, product -> times(product, z) end)

        Error.map([a, b], &reshaped(&1, out))
      end
    end

    defp places([]), do: [[]]
    defp places([n | more]), do: for(at <- 0..(n - 1), rest <- places(more), do: [at | rest])

    # The parts of pairs as matrices whose rows are multiplied.
    defp columns(%{shape: shape} = pairs, axes) do
      last = length(shape) - 1
      all = Enum.to_list(0..(last - 1)//1)
      reduced = axes || all

      sizes =
        for axes <- [all -- reduced, reduced],
            do: axes |> Enum.map(&Enum.at(shape, &1)) |> Enum.product()

      view = Strides.transpose(pairs, (all -- reduced) ++ reduced ++ [last])

      with {:ok, buffer} <- Movement.contiguous(view),
           {:ok, view} <- Strides.reshape(View.new(buffer), sizes ++ [2]),
           do: {:ok, {ComplexParts.part(view, 0), ComplexParts.part(view, 1)}}
    end

    # Halves are multiplied until one column is left; `rest` is the product of the columns that had no other half.
    defp multiplied({:ok, {%{shape: [_, 1]}, _} = z}, rest),
      do: {:ok, times(z, rest)}

    defp multiplied({:ok, {%{shape: [_, count]}, _} = z}, rest) do
      half = div(count, 2)
      rest = if rem(count, 2) == 1, do: times(columns(z, count - 1, 1), rest), else: rest
      product = times(columns(z, 0, half), columns(z, half, half))
      multiplied({:ok, product}, rest)
    end

    defp multiplied(error, _rest), do: error

    defp times(z, nil), do: z

    defp times(z, w) do
      {a, b} = ComplexFunctions.operation(:multiply, [z, w])
      {View.new(a), View.new(b)}
    end

    defp columns({a, b}, from, count) do
      slice = fn %{shape: [rows, _]} = view ->
        Strides.slice(view, [0, from], [rows, count], [1, 1])
      end

      {slice.(a), slice.(b)}
    end

    defp reshaped(view, shape) do
      with {:ok, buffer} <- Movement.contiguous(view), do: Buffer.reshape(buffer, shape)
    end
  end
end
