# The documentation of Nx, with ExCubecl.Backend as the default backend: NX_HOST_LIMIT and NX_FALLBACK are its options.

Application.put_env(:ex_cubecl, :add_backend_on_inspect, false)
limit = String.to_integer(System.fetch_env!("NX_HOST_LIMIT"))
fallback = String.to_atom(System.get_env("NX_FALLBACK") || "host")
Nx.global_default_backend({ExCubecl.Backend, host_limit: limit, fallback: fallback})

for module <- [Nx, Nx.LinAlg, Nx.Random] do
  defmodule Module.concat(ExCubecl.NxDoctests, module) do
    use ExUnit.Case, async: true
    doctest module
  end
end
