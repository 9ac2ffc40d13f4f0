# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Options do
    @moduledoc false
    # The options of the backend, checked. Errors are raised, and name it.

    alias ExCubecl.Device
    alias ExCubecl.Error.{Arguments, Operation}

    @doc "The options as a map. Nx passes them as they were given, or as `init/1` of the backend returned them."
    def config([config: %{host_limit: _} = config], _backend), do: config

    def config(opts, backend), do: Operation.unwrap!(checked(opts), backend, [])

    defp checked(opts) do
      with {:ok, opts} <- Arguments.options(opts, [:device, :tag, :fallback, :host_limit]),
           {:ok, fallback} <- fallback(Keyword.get(opts, :fallback, :host)),
           {:ok, device} <- device(opts[:device]),
           {:ok, limit} <- Arguments.index(:host_limit, Keyword.get(opts, :host_limit, 64)),
           do: {:ok, %{device: device, tag: opts[:tag], fallback: fallback, host_limit: limit}}
    end

    defp fallback(name) when name in [:host, :raise], do: {:ok, name}
    defp fallback(other), do: Arguments.invalid(:fallback, other, ":host or :raise")

    defp device(nil), do: Device.resolve(nil)
    defp device(named), do: Device.existing(named)
  end
end
