defmodule ExCubecl.Ops.Functions do
  @moduledoc false
  # The functions of floats, as kernels. Those that the kernel language does not have are polynomials or made of others.

  alias ExCubecl.Kernel

  require Kernel

  # A polynomial of the variable `u`, from the lowest coefficient on.
  polynomial = fn coefficients ->
    coefficients
    |> Enum.reverse()
    |> Enum.reduce(fn lower, sum -> quote(do: unquote(lower) + u * unquote(sum)) end)
  end

  kernel = fn quoted -> quoted |> Code.eval_quoted([], __ENV__) |> elem(0) end

  # M. Giles, Approximating the erfinv function.
  near =
    polynomial.(
      [1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.000218580870] ++
        [-4.39150654e-6, -3.5233877e-6, 3.43273939e-7, 2.81022636e-8]
    )

  far =
    polynomial.(
      [2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773] ++
        [-0.00367342844, 0.00134934322, 0.000100950558, -0.000200214257]
    )

  @erf_inv kernel.(
             quote do
               Kernel.kernel(fn x ->
                 w = 0 - log1p(0 - x * x)
                 near? = w < 5
                 u = if near?, do: w - 2.5, else: sqrt(w) - 3
                 value = if near?, do: unquote(near), else: unquote(far)
                 if abs(x) == 1, do: x / 0, else: x * value
               end)
             end
           )

  # W. Press et al., Numerical Recipes: the relative error is below 1.2e-7.
  tail =
    polynomial.(
      [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806] ++
        [0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277]
    )

  @erfc kernel.(
          quote do
            Kernel.kernel(fn x ->
              z = abs(x)
              u = 1 / (1 + 0.5 * z)
              tail = if z > 30, do: 0, else: u * exp(unquote(tail) - z * z)
              if x < 0, do: 2 - tail, else: tail
            end)
          end
        )

  # Near 0, where the difference exp(x) - 1 cancels, its series.
  series = polynomial.(for n <- 1..9, do: 1 / Enum.product(1..n))

  @expm1 kernel.(
           quote do
             Kernel.kernel(fn u ->
               if abs(u) < 0.5, do: u * unquote(series), else: exp(u) - 1
             end)
           end
         )

  # S. Moshier, Cephes: drivers may calculate the arcsine with an error of 2^-12.
  arcsine =
    polynomial.([0.16666752422, 0.074953002686, 0.045470025998, 0.024181311049, 0.042163199048])

  [asin, acos] =
    for result <- [
          quote(do: if(z == 0, do: x, else: signed)),
          quote(do: if(near?, do: 1.5707963267948966 - signed, else: other))
        ] do
      quote do
        Kernel.kernel(fn x ->
          z = abs(x)
          near? = z < 0.5
          u = if near?, do: z * z, else: 0.5 * (1 - z)
          s = if near?, do: z, else: sqrt(u)
          arc = s + s * u * unquote(arcsine)
          value = if near?, do: arc, else: 1.5707963267948966 - 2 * arc
          signed = if x < 0, do: -value, else: value
          other = if x < 0, do: 3.141592653589793 - 2 * arc, else: 2 * arc
          unquote(result)
        end)
      end
    end

  @asin kernel.(asin)
  @acos kernel.(acos)

  # One step of Newton's method corrects the power.
  @cbrt Kernel.kernel(fn x ->
          z = abs(x)
          y = z ** 0.3333333333333333
          root = if z == 0 or infinite?(z), do: z, else: y - (y * y * y - z) / (3 * y * y)
          if x < 0, do: -root, else: if(z == 0, do: x, else: root)
        end)

  @asinh Kernel.kernel(fn x ->
           z = abs(x)
           square = z * z
           large = log(z) + 0.6931471805599453
           y = if z > 10_000, do: large, else: log1p(z + square / (1 + sqrt(1 + square)))
           if x < 0, do: -y, else: if(z == 0, do: x, else: y)
         end)

  @acosh Kernel.kernel(fn x ->
           y = x - 1
           large = log(x) + 0.6931471805599453
           if x > 10_000, do: large, else: log1p(y + sqrt(2 * y + y * y))
         end)

  @all [
    exp: Kernel.kernel(fn x -> exp(x) end),
    expm1: @expm1,
    log: Kernel.kernel(fn x -> log(x) end),
    log1p: Kernel.kernel(fn x -> log1p(x) end),
    sqrt: Kernel.kernel(fn x -> sqrt(x) end),
    rsqrt: Kernel.kernel(fn x -> rsqrt(x) end),
    cbrt: @cbrt,
    sin: Kernel.kernel(fn x -> sin(x) end),
    cos: Kernel.kernel(fn x -> cos(x) end),
    tan: Kernel.kernel(fn x -> tan(x) end),
    asin: @asin,
    acos: @acos,
    atan: Kernel.kernel(fn x -> atan(x) end),
    sinh: Kernel.kernel(fn x -> sinh(x) end),
    cosh: Kernel.kernel(fn x -> cosh(x) end),
    tanh: Kernel.kernel(fn x -> tanh(x) end),
    asinh: @asinh,
    acosh: @acosh,
    atanh: Kernel.kernel(fn x -> 0.5 * (log1p(x) - log1p(-x)) end),
    erf: Kernel.kernel(fn x -> erf(x) end),
    erfc: @erfc,
    erf_inv: @erf_inv,
    sigmoid: Kernel.kernel(fn x -> 1 / (1 + exp(-x)) end),
    gelu: Kernel.kernel(fn x -> 0.5 * x * (1 + erf(x * 0.7071067811865476)) end)
  ]

  @doc "The functions by name."
  def all, do: unquote(Macro.escape(@all))
end
