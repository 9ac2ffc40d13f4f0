if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Order do
    @moduledoc false
    # Sorts, and the indices of minima and maxima. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, DType, Error, Kernel}
    alias ExCubecl.Nx.{Operand, Storage}
    alias ExCubecl.Ops
    alias ExCubecl.Ops.{Reductions, Temporary}

    def names, do: [:sort, :argsort, :top_k, :argmax, :argmin]

    # Up to Nx 0.7, NaN is found only if it is the first element; later, the last NaN is found.
    nan =
      Nx.BinaryBackend.from_binary(
        Nx.template({2}, {:f, 32}),
        <<1.0::float-32-native, -1::32>>,
        []
      )

    found = Nx.BinaryBackend.argmax(Nx.template({}, {:s, 64}), nan, tie_break: :low)
    @nan if Nx.to_number(found) == 1, do: :last, else: :start

    def run(:top_k, [{_values, indices}, tensor, [k: k]], config) do
      with {:ok, view} <- view(tensor, config),
           {:ok, {values, places}} <- Ops.top_k(view, k),
           {:ok, places} <- converted(places, indices, view),
           do: {:ok, {values, places}}
    end

    def run(:sort, [_out, tensor, opts], config) do
      with {:ok, view} <- view(tensor, config), do: Ops.sort(view, sort(opts))
    end

    def run(:argsort, [out, tensor, opts], config) do
      with {:ok, view} <- view(tensor, config),
           {:ok, places} <- Ops.argsort(view, sort(opts)),
           do: converted(places, out, view)
    end

    def run(name, [out, tensor, opts], config) when name in [:argmax, :argmin] do
      with {:ok, view} <- view(tensor, config),
           {:ok, nan} <- nan(view.dtype, opts[:tie_break]),
           {:ok, place} <- Reductions.index_of(name, view, place(opts), nan),
           {:ok, place} <- converted(place, out, view),
           do: Buffer.reshape(place, out.shape)
    end

    @doc "The callbacks `argmax` and `argmin` of the results of an element-wise kernel, of a type that the device computes, along axes."
    @spec index_of(Nx.Tensor.t(), {Kernel.t(), [term], DType.t()}, [non_neg_integer], atom, atom) ::
            {:ok, Buffer.t()} | :host | {:error, Error.t()}
    def index_of(out, {kernel, operands, dtype}, axes, name, tie) do
      with {:ok, nan} <- nan(dtype, tie),
           types = {dtype, tie || :low, nan},
           {:ok, place} <- Reductions.index_of_kernel(name, kernel, operands, axes, types),
           do: converted(place, out, %{buffer: nil})
    end

    defp view(tensor, config) do
      with {:ok, _} <- Operand.dtype(tensor), do: {:ok, Storage.view(tensor, config)}
    end

    defp converted(places, out, view) do
      with {:ok, dtype} <- Operand.dtype(out),
           do: Temporary.converted(places, dtype, [view.buffer])
    end

    defp sort(opts), do: Keyword.take(opts, [:axis, :direction])

    ## Minima and maxima

    # The last NaN, if the first element is one, is not known to a kernel that ignores NaN elsewhere.
    defp nan(dtype, :high) when @nan == :start and dtype in [:f16, :bf16, :f32, :f64], do: :host
    defp nan(_dtype, _tie), do: {:ok, @nan}

    defp place(opts),
      do: Enum.reject(Keyword.take(opts, [:axis, :tie_break]), &match?({_, nil}, &1))
  end
end
