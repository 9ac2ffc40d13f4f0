if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Types do
    @moduledoc false
    # Element types of Nx and of buffers.

    alias ExCubecl.DType

    @doc "The dtype of a type of Nx, or `nil` for types that kernels do not calculate with, such as complex numbers, which are pairs."
    @spec dtype(Nx.Type.t()) :: DType.t() | nil
    # The type of Nx for a dtype.
    @spec type(DType.t()) :: Nx.Type.t()

    for dtype <- DType.all() do
      <<kind, bits::binary>> = String.replace(Atom.to_string(dtype), "bf", "b")
      kind = if kind == ?b, do: :bf, else: String.to_atom(<<kind>>)
      type = {kind, String.to_integer(bits)}

      def dtype(unquote(Macro.escape(type))), do: unquote(dtype)
      def type(unquote(dtype)), do: unquote(Macro.escape(type))
    end

    def dtype(_other), do: nil

    @doc """
    How a buffer stores a type: `{dtype, axes}` with the axes that follow those of the tensor. Floats of eight bits are bytes, complex numbers are pairs, and
    integers of less than eight bits, `nil`, are never in a buffer.
    """
    @spec storage(Nx.Type.t()) :: {DType.t(), [2]} | nil
    def storage({:c, 64}), do: {:f32, [2]}
    def storage({:c, 128}), do: {:f64, [2]}

    def storage({_, bits} = type) do
      case dtype(type) do
        nil -> if bits == 8, do: {:u8, []}
        dtype -> {dtype, []}
      end
    end

    @doc "Whether every value of the first dtype is a value of the second one."
    @spec exact?(DType.t(), DType.t()) :: boolean
    def exact?(same, same), do: true

    def exact?(from, to) do
      case {digits(from), digits(to)} do
        {{:float, a}, {:float, b}} -> a <= b and not (from == :bf16 and to == :f16)
        {{:float, _}, _} -> false
        {{_, a}, {:float, b}} -> a <= b and to != :f16
        {{:signed, _}, {:unsigned, _}} -> false
        {{_, a}, {_, b}} -> a <= b
      end
    end

    # The kind of a type, and the number of binary digits of its integers.
    defp digits(:f16), do: {:float, 11}
    defp digits(:bf16), do: {:float, 8}
    defp digits(:f32), do: {:float, 24}
    defp digits(:f64), do: {:float, 53}
    defp digits(dtype) when dtype in [:u8, :u16, :u32, :u64], do: {:unsigned, bits(dtype)}
    defp digits(dtype), do: {:signed, bits(dtype) - 1}

    defp bits(dtype), do: 8 * DType.size!(dtype)
  end
end
