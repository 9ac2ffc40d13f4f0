if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Blocks do
    @moduledoc false
    # The blocks of Nx 0.12 and later, by the names of the optional callbacks that they replaced.

    alias ExCubecl.Nx.LinAlg
    alias Nx.Tensor, as: T

    # Modules that exist only in these versions.
    @blocks %{
      Nx.Block.TopK => {:top_k, [:k]},
      Nx.Block.Take => {:take, [:axis]},
      Nx.Block.TakeAlongAxis => {:take_along_axis, [:axis]},
      Nx.Block.FFT2 => {:fft2, [:eps, :lengths, :axes]},
      Nx.Block.IFFT2 => {:ifft2, [:eps, :lengths, :axes]},
      Nx.Block.RFFT => {:rfft, [:eps, :length, :axis]},
      Nx.Block.IRFFT => {:irfft, [:eps, :length, :axis]},
      Nx.Block.CumulativeSum => {:cumulative_sum, [:axis, :reverse]},
      Nx.Block.CumulativeProduct => {:cumulative_product, [:axis, :reverse]},
      Nx.Block.CumulativeMin => {:cumulative_min, [:axis, :reverse]},
      Nx.Block.CumulativeMax => {:cumulative_max, [:axis, :reverse]},
      Nx.Block.LinAlg.Cholesky => {:cholesky, []},
      Nx.Block.LinAlg.LU => {:lu, []},
      Nx.Block.LinAlg.QR => {:qr, [:eps, :mode]},
      Nx.Block.LinAlg.Eigh => {:eigh, [:max_iter, :eps]},
      Nx.Block.LinAlg.SVD => {:svd, [:max_iter, :full_matrices?]},
      Nx.Block.LinAlg.Solve => {:solve, []},
      Nx.Block.LinAlg.Determinant => {:determinant, []}
    }

    @any_type [:top_k, :take, :take_along_axis, :fft2, :ifft2, :rfft, :irfft]

    # Nx has few operations for small matrices.
    @of_large [:solve, :determinant]
    @decompositions [:cholesky, :lu, :qr, :eigh, :svd]

    @doc "The callback of a block, and its arguments after the tensors; `:default` for a block that is left to its default implementation."
    @spec callback(struct, [T.t()]) :: {atom, [keyword]} | :default
    def callback(%module{} = block, tensors) do
      with {name, options} <- @blocks[module],
           true <-
             name in @any_type or Enum.all?(tensors, &real?/1) or on_host?(name, hd(tensors)),
           true <- name not in @of_large or large?(hd(tensors)) do
        {name, if(options == [], do: [], else: [block |> Map.take(options) |> Map.to_list()])}
      else
        _ -> :default
      end
    end

    @doc "The name of the callback of a block that has one."
    @spec name(struct) :: atom
    def name(%module{}), do: elem(@blocks[module], 0)

    defp on_host?(name, tensor), do: name in @decompositions and LinAlg.small?(name, tensor)
    defp real?(%T{type: {kind, _}}), do: kind != :c
    defp large?(%T{shape: shape}), do: elem(shape, tuple_size(shape) - 1) >= 9
  end
end
