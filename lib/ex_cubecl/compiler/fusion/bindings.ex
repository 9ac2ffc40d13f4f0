if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Bindings do
    @moduledoc false
    # How many buffers the kernel of a group may have.

    alias ExCubecl.Device

    # More would save few launches, and take long to compile.
    @most 31

    @doc "The buffers of a kernel on a device."
    @spec most(Device.id()) :: pos_integer
    def most(device) do
      case Device.max_buffers(device) do
        {:ok, most} -> min(most, @most)
        # The device is gone, which the first launch reports.
        {:error, _} -> @most
      end
    end
  end
end
