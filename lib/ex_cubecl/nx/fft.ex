if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.FFT do
    @moduledoc false
    # Fourier transforms. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Kernel, Ops, View}
    alias ExCubecl.Nx.{ComplexParts, Movement, Operand, Storage, Types}
    alias ExCubecl.Ops.Temporary

    require Kernel

    def names, do: [:fft, :ifft, :fft2, :ifft2, :rfft, :irfft]

    # Nx calculates with 64 bits, and replaces numbers of at most `eps` by zeros.
    @clean Kernel.kernel(fn x, eps -> if abs(x) <= eps, do: 0, else: x end)

    def run(name, [out, tensor, opts], config) do
      with {dtype, _} <- Types.storage(out.type),
           {_, pair} <- Types.storage(tensor.type),
           true <- Operand.computes?(config.device, dtype),
           {:ok, result} <- transformed(name, tensor, pair == [], dtype, opts, config) do
        with {:ok, clean} <- Kernel.run(@clean, [result, opts[:eps] / 1]),
             :ok <- Temporary.free([result], [clean]),
             do: {:ok, clean}
      else
        nil -> :host
        false -> :host
        other -> other
      end
    end

    # Of complex numbers, the others being 0.
    defp transformed(:irfft, tensor, _real?, dtype, opts, config) do
      with {:ok, pairs} <- ComplexParts.pairs(tensor, dtype, config),
           {:ok, buffer} <- Movement.contiguous(pairs),
           do: Ops.irfft(buffer, Keyword.take(opts, [:axis, :length]))
    end

    # The second half of the transform of real numbers is the conjugate of the first.
    defp transformed(:rfft, tensor, _real?, dtype, opts, config) do
      buffer = Operand.cast(Storage.buffer(tensor, config), dtype)
      Ops.rfft(buffer, Keyword.take(opts, [:axis, :length]))
    end

    defp transformed(name, tensor, real?, dtype, opts, config) do
      given = Storage.buffer(tensor, config)
      buffer = Operand.cast(given, dtype)
      opts = Keyword.take(opts, [:axis, :length, :axes, :lengths])

      with {:ok, result} <- apply(Ops, name, [buffer, [real: real?] ++ opts]),
           :ok <- Temporary.free([given, buffer], [result | memory(tensor)]),
           do: {:ok, result}
    end

    defp memory(%{data: %{state: %View{buffer: buffer}}}), do: [buffer]
    defp memory(_host), do: []
  end
end
