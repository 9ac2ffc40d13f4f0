# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Options do
    @moduledoc false
    # The options of the backend, checked. Errors are raised, and name it.
    #
    # The data of a tensor of the backend has them as `config`, and that of other backends does not: so the modules below the backend recognize its tensors. They make
    # tensors with `data`, a struct of the backend without content, and do not depend on the backend.

    alias ExCubecl.Device
    alias ExCubecl.Error.{Arguments, Operation}

    @names [:device, :tag, :fallback, :host_limit]

    @enforce_keys [:data | @names]
    defstruct @enforce_keys

    @type t :: %__MODULE__{
            data: struct,
            device: Device.id(),
            tag: term,
            fallback: :host | :raise,
            host_limit: non_neg_integer
          }

    @doc "The options as a struct. Nx passes them as they were given, or as `init/1` of the backend returned them."
    @spec config(keyword, struct) :: t
    def config([config: %__MODULE__{} = config], _data), do: config

    def config(opts, %backend{} = data), do: Operation.unwrap!(checked(opts, data), backend, [])

    defp checked(opts, data) do
      with {:ok, opts} <- Arguments.options(opts, @names),
           {:ok, fallback} <- fallback(Keyword.get(opts, :fallback, :host)),
           {:ok, device} <- device(opts[:device]),
           {:ok, limit} <- Arguments.index(:host_limit, Keyword.get(opts, :host_limit, 64)) do
        {:ok,
         %__MODULE__{
           data: data,
           device: device,
           tag: opts[:tag],
           fallback: fallback,
           host_limit: limit
         }}
      end
    end

    defp fallback(name) when name in [:host, :raise], do: {:ok, name}
    defp fallback(other), do: Arguments.invalid(:fallback, other, ":host or :raise")

    defp device(nil), do: Device.resolve(nil)
    defp device(named), do: Device.existing(named)

    @doc "The options as a caller gives them."
    @spec given(t) :: keyword
    def given(config),
      do: for({name, value} <- Map.take(config, @names), value != nil, do: {name, value})
  end
end
