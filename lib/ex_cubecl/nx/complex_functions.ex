if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ComplexFunctions do
    @moduledoc false
    # Functions of complex numbers a + b i, made of functions of their parts. `ExCubecl.Ops` has those of :f32 only.

    alias ExCubecl.{Error, Kernel, Ops}
    alias ExCubecl.Nx.ComplexKernels

    require Kernel

    @product Kernel.kernel(fn x, y -> x * y end)
    @negated Kernel.kernel(fn x, y -> -(x * y) end)
    @same Kernel.kernel(fn x -> x end)

    # For each part of the result: a kernel of a function of a and a function of b.
    @products %{
      exp: [{@product, :exp, :cos}, {@product, :exp, :sin}],
      sin: [{@product, :sin, :cosh}, {@product, :cos, :sinh}],
      cos: [{@product, :cos, :cosh}, {@negated, :sin, :sinh}],
      sinh: [{@product, :sinh, :cos}, {@product, :cosh, :sin}],
      cosh: [{@product, :cosh, :cos}, {@product, :sinh, :sin}]
    }

    @doc "The names of the functions."
    def names, do: [:log | Map.keys(@products)]

    @doc "For each part of the result, a kernel and its operands."
    def parts(:log, a, b) do
      with {:ok, magnitude} <- ComplexKernels.magnitude(a, b),
           {:ok, log} <- Ops.log(magnitude),
           {:ok, angle} <- Ops.atan2(b, a),
           do: {:ok, [{@same, [log]}, {@same, [angle]}]}
    end

    def parts(name, a, b) do
      Error.map(@products[name], fn {kernel, of_a, of_b} ->
        with {:ok, x} <- apply(Ops, of_a, [a]),
             {:ok, y} <- apply(Ops, of_b, [b]),
             do: {:ok, {kernel, [x, y]}}
      end)
    end
  end
end
