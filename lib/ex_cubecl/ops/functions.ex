defmodule ExCubecl.Ops.Functions do
  @moduledoc false
  # The functions of floats, as kernels: those of the kernel language, and gelu.

  alias ExCubecl.Kernel

  require Kernel

  @all [
    exp: Kernel.kernel(fn x -> exp(x) end),
    expm1: Kernel.kernel(fn x -> expm1(x) end),
    log: Kernel.kernel(fn x -> log(x) end),
    log1p: Kernel.kernel(fn x -> log1p(x) end),
    sqrt: Kernel.kernel(fn x -> sqrt(x) end),
    rsqrt: Kernel.kernel(fn x -> rsqrt(x) end),
    cbrt: Kernel.kernel(fn x -> cbrt(x) end),
    sin: Kernel.kernel(fn x -> sin(x) end),
    cos: Kernel.kernel(fn x -> cos(x) end),
    tan: Kernel.kernel(fn x -> tan(x) end),
    asin: Kernel.kernel(fn x -> asin(x) end),
    acos: Kernel.kernel(fn x -> acos(x) end),
    atan: Kernel.kernel(fn x -> atan(x) end),
    sinh: Kernel.kernel(fn x -> sinh(x) end),
    cosh: Kernel.kernel(fn x -> cosh(x) end),
    tanh: Kernel.kernel(fn x -> tanh(x) end),
    asinh: Kernel.kernel(fn x -> asinh(x) end),
    acosh: Kernel.kernel(fn x -> acosh(x) end),
    atanh: Kernel.kernel(fn x -> atanh(x) end),
    erf: Kernel.kernel(fn x -> erf(x) end),
    erfc: Kernel.kernel(fn x -> erfc(x) end),
    erf_inv: Kernel.kernel(fn x -> erf_inv(x) end),
    sigmoid: Kernel.kernel(fn x -> sigmoid(x) end),
    gelu: Kernel.kernel(fn x -> 0.5 * x * erfc(x * -0.7071067811865476) end)
  ]

  @doc "The functions by name."
  def all, do: unquote(Macro.escape(@all))
end
