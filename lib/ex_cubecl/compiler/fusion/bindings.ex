if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Bindings do
    @moduledoc false
    # How many buffers a kernel may bind on a device.

    alias ExCubecl.Device

    # The limits of drivers are at least 8. Lavapipe binds 32, one of which is CubeCL's; the parameters of a kernel of CUDA hold more.
    @least 8
    @many 31

    @doc "The buffers of a kernel, as far as is known before it runs."
    @spec most(Device.id()) :: pos_integer
    def most({:cuda, _}), do: @many
    def most(device), do: if(Device.cpu?(device), do: @many, else: @least)

    @doc "Whether a kernel with this many buffers may run. Which operands are numbers, and how many views it reads of one tensor, is known only then."
    @spec fits?(non_neg_integer) :: boolean
    def fits?(count), do: count <= @many
  end
end
