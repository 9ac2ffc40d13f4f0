defmodule ExCubecl.Kernel.FloatFunctions do
  @moduledoc false
  # The functions of floats, as element-wise kernels for `:f32` and `:f64`: polynomials after a reduction of the argument, with rounding errors carried along where
  # they matter. Comparisons are of bits, which are cheaper than those of floats (`lower/floats.rs`).

  alias ExCubecl.Kernel.Parser

  alias ExCubecl.Kernel.FloatFunctions.{
    ErrorFunction,
    Exponential,
    Format,
    Inverse,
    Logarithm,
    Power,
    Reduction,
    Remainder,
    Roots,
    Trigonometric
  }

  # The modules in an order in which each function uses only those before it.
  groups = [
    &Format.helpers/1,
    &Reduction.helpers/1,
    &Logarithm.helpers/1,
    &Exponential.all/1,
    &Logarithm.all/1,
    &ErrorFunction.helpers/1,
    &ErrorFunction.all/1,
    &Trigonometric.all/1,
    &Inverse.helpers/1,
    &Inverse.all/1,
    &Roots.all/1,
    &Power.all/1,
    &Remainder.all/1
  ]

  @language ~w(exp expm1 log log1p sin cos tan sinh cosh tanh sigmoid asin acos atan asinh acosh atanh erf erfc erf_inv rsqrt cbrt pow atan2 rem)a

  parsed =
    for format <- Format.all(), reduce: %{} do
      all ->
        functions =
          for group <- groups, {name, code} <- group.(format), reduce: %{} do
            known ->
              {:fn, _, [{:->, _, [args, body]}]} = code

              resolve = fn nil, name, arity ->
                Map.get(known, {name, arity}, {:other, :unknown})
              end

              kernel = Parser.parse(name, args, body, [], __ENV__, resolve)
              Map.put(known, {name, length(args)}, kernel)
          end

        for {{name, _arity}, kernel} <- functions,
            name in @language,
            into: all,
            do: {{name, format.type}, kernel}
    end

  @functions parsed

  @doc "The names of the functions of one operand and of two."
  def names, do: @language

  @doc "The kernel of a function for `:f32` or `:f64`; `nil` if it has none, as `rem` of `:f32`."
  def kernel(name, type), do: Map.get(functions(), {name, type})

  defp functions, do: unquote(Macro.escape(@functions))
end
