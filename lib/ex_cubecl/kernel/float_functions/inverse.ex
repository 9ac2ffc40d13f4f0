defmodule ExCubecl.Kernel.FloatFunctions.Inverse do
  @moduledoc false
  # asin, acos, atan and atan2.

  import ExCubecl.Kernel.FloatFunctions.Format

  # Sets z, v, with asin s = s + v, where s is |x|, or sqrt((1 - |x|) / 2) above 1/2; large? tells which.
  defp sine(f) do
    {:__block__, _, lines} =
      quote do
        size = abs(x)
        large? = magnitude(x) > unquote(bits_of(f, 0.5))
        z = if large?, do: 0.5 * (1 - size), else: size * size
        root = sqrt(z)
        square = root * root
        error = (z - square - product_error(root, root, square)) / (2 * root)
        s = if large?, do: root, else: size
        v = s * z * unquote(polynomial(f, :asin, quote(do: z)))
        v = if large? and magnitude(z) != 0, do: v + error, else: v
      end

    lines
  end

  # The angle of a point with positive coordinates, or with a negative x if behind? holds. With the ratio of the lesser and the greater one, it is a multiple of pi / 4
  # plus or minus atan(q), where |q| is at most tan(pi / 8).
  defp arctangent(f) do
    quote do
      fn y, x, behind? ->
        steep? = bitcast(y, unquote(f.word)) > bitcast(x, unquote(f.word))
        below = if steep?, do: x, else: y
        above = if steep?, do: y, else: x
        part = above * unquote(:math.sqrt(2) - 1)
        middle? = bitcast(below, unquote(f.word)) > bitcast(part, unquote(f.word))
        less = below - above
        more = below + above
        top = if middle?, do: less, else: below
        top_rest = if middle?, do: below - (less + above), else: 0.0
        bottom = if middle?, do: more, else: above
        bottom_rest = if middle?, do: above - more + below, else: 0.0
        q = top / bottom
        p = q * bottom
        z = q * q
        error = top - p - product_error(q, bottom, p) + (top_rest - q * bottom_rest)
        v = q * z * unquote(polynomial(f, :atan, quote(do: z))) + error / (bottom * (1 + z))
        eighths = if middle?, do: unquote(number(:s32, 1)), else: 0
        eighths = if steep?, do: 2 - eighths, else: eighths
        eighths = if behind?, do: 4 - eighths, else: eighths
        back? = (steep? and not behind?) or (behind? and not steep?)
        q = if back?, do: -q, else: q
        v = if back?, do: -v, else: v
        base = unquote(multiple(f, 0))
        high = base + q
        high + (base - high + q + (unquote(multiple(f, 1)) + v))
      end
    end
  end

  # The code for `eighths` times pi / 4 (an eighth of a turn), which takes two floats: at place 0 the float that is closest to it, at place 1
  # the float that is closest to the rest.
  defp multiple(f, place) do
    [one, two, three, four] = for parts <- f.quarters, do: number(f.type, elem(parts, place))

    quote do
      cond do
        eighths == 0 -> 0.0
        eighths == 1 -> unquote(one)
        eighths == 2 -> unquote(two)
        eighths == 3 -> unquote(three)
        true -> unquote(four)
      end
    end
  end

  @doc "Helpers: the angle of a point."
  def helpers(f), do: [arctangent: arctangent(f)]

  # Factors for a point near zero, and for one so far away that a sum or a product overflows.
  defp near(%{type: :f32}), do: {1.0e-12, :math.pow(2, 92)}
  defp near(%{type: :f64}), do: {1.0e-12, :math.pow(2, 400)}
  defp far(%{type: :f32}), do: {1.0e30, :math.pow(2, -24)}
  defp far(%{type: :f64}), do: {1.0e290, :math.pow(2, -64)}

  def all(f) do
    {half_pi, half_pi_low} = f.half_pi
    {near, enlarged} = near(f)
    {far, reduced} = far(f)

    [
      asin:
        quote do
          fn x ->
            unquote_splicing(sine(f))
            near = s + v
            twice = 2 * s
            high = unquote(half_pi) - twice
            far = high + (unquote(half_pi) - high - twice + (unquote(half_pi_low) - 2 * v))

            if magnitude(x) <= unquote(bits_of(f, 1.0)),
              do: with_sign(if(large?, do: far, else: near), x),
              else: unquote(of_bits(f, f.nan))
          end
        end,
      acos:
        quote do
          fn x ->
            unquote_splicing(sine(f))
            minus? = bitcast(x, unquote(f.integer)) < 0
            twice = 2 * s
            # pi / 2 - s - v or pi - 2 s - 2 v, with the sign of x.
            base = if large?, do: unquote(number(f.type, 2 * half_pi)), else: unquote(half_pi)

            base_low =
              if large?, do: unquote(number(f.type, 2 * half_pi_low)), else: unquote(half_pi_low)

            away = if large?, do: -twice, else: with_sign(-s, x)
            away_rest = if large?, do: -2 * v, else: with_sign(-v, x)
            high = base + away
            far = high + (base - high + away + (base_low + away_rest))
            near = twice + 2 * v
            value = if large? and not minus?, do: near, else: far

            if magnitude(x) <= unquote(bits_of(f, 1.0)),
              do: value,
              else: unquote(of_bits(f, f.nan))
          end
        end,
      atan:
        quote do
          fn x ->
            wide = abs(x)
            size = unquote(limited(f, quote(do: wide), 1.0e18))
            with_sign(arctangent(size, unquote(number(f.type, 1)), false), x)
          end
        end,
      atan2:
        quote do
          fn y, x ->
            x_bits = magnitude(x)
            y_bits = magnitude(y)
            most = max(x_bits, y_bits)
            infinite? = most == unquote(f.infinity)

            scale =
              cond do
                most < unquote(bits_of(f, near)) -> unquote(number(f.type, enlarged))
                most > unquote(bits_of(f, far)) -> unquote(number(f.type, reduced))
                true -> 1.0
              end

            up = abs(y) * scale
            along = abs(x) * scale
            # Two zeros are a point on the axis, two infinities one on the diagonal.
            up_limit = if y_bits == most, do: unquote(number(f.type, 1)), else: 0.0
            along_limit = if x_bits == most, do: unquote(number(f.type, 1)), else: 0.0
            up = if infinite?, do: up_limit, else: up
            along = if infinite?, do: along_limit, else: along
            along = if most == 0, do: 1.0, else: along
            angle = arctangent(up, along, bitcast(x, unquote(f.integer)) < 0)

            if most <= unquote(f.infinity),
              do: with_sign(angle, y),
              else: unquote(of_bits(f, f.nan))
          end
        end
    ]
  end
end
