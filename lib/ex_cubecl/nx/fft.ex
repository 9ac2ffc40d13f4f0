if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.FFT do
    @moduledoc false
    # Fourier transforms. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Kernel, Ops}
    alias ExCubecl.Nx.{Operand, Storage, Types}

    require Kernel

    def names, do: [:fft, :ifft]

    # Nx calculates with 64 bits, and replaces numbers of at most `eps` by zeros.
    @clean Kernel.kernel(fn x, eps -> if abs(x) <= eps, do: 0, else: x end)

    def run(name, [out, tensor, opts], config) do
      with {dtype, [2]} <- Types.storage(out.type),
           {_, pair} <- Types.storage(tensor.type),
           true <- Operand.computes?(config.device, dtype) do
        buffer = Operand.cast(Storage.buffer(tensor, config), dtype)
        transform = [axis: opts[:axis], length: opts[:length], real: pair == []]

        with {:ok, result} <- apply(Ops, name, [buffer, transform]),
             do: Kernel.run(@clean, [result, opts[:eps] / 1])
      else
        _ -> :host
      end
    end
  end
end
