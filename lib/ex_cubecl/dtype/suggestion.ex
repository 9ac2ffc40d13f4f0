defmodule ExCubecl.DType.Suggestion do
  @moduledoc false
  # The element type that is meant by a name of another library: Nx (`{:f, 32}`), NumPy (`:float32`, `"<f4"`), PyTorch (`:half`), Rust and C (`:i32`, `:double`).

  alias ExCubecl.DType.Table
  alias ExCubecl.Error.Text

  @names %{
    "half" => :f16,
    "float" => :f32,
    "single" => :f32,
    "number" => :f32,
    "double" => :f64,
    "bool" => :u8,
    "boolean" => :u8,
    "pred" => :u8,
    "byte" => :u8,
    "ubyte" => :u8,
    "uchar" => :u8,
    "char" => :s8,
    "short" => :s16,
    "ushort" => :u16,
    "int" => :s32,
    "integer" => :s32,
    "uint" => :u32,
    "long" => :s64,
    "longlong" => :s64,
    "ulong" => :u64
  }

  @kinds %{
    "f" => "f",
    "fp" => "f",
    "float" => "f",
    "bf" => "bf",
    "bfloat" => "bf",
    "i" => "s",
    "s" => "s",
    "int" => "s",
    "sint" => "s",
    "u" => "u",
    "ui" => "u",
    "uint" => "u"
  }

  # Kinds of NumPy's type strings, whose numbers are bytes: the order of the bytes, a letter and a number.
  @of_bytes %{"f" => "f", "i" => "s", "u" => "u", "b" => "u"}

  @doc "What is expected in place of a term that is no element type, after the word `expected`."
  @spec text(term, String.t()) :: String.t()
  def text(term, expected) do
    types = Enum.map_join(Table.all(), " ", &inspect/1)

    case find(term) do
      nil -> "#{expected} one of #{types}#{instead(term)}"
      dtype -> "did you mean #{inspect(dtype)}? #{String.capitalize(expected)} one of #{types}"
    end
  end

  defp instead({kind, _bits}) when kind in [:c, :complex], do: instead(:complex)

  defp instead(term) when is_atom(term) or is_binary(term) do
    if String.starts_with?(String.downcase(to_string(term)), "complex"),
      do: "; a complex number is a pair of floats along a last axis of length 2",
      else: ""
  end

  defp instead(_term), do: ""

  @doc """
  The element type that a term names elsewhere, or `nil`.

      iex> Enum.map([{:f, 32}, :i32, "float32", :double, "<i8", "torch.half"], &ExCubecl.DType.Suggestion.find/1)
      [:f32, :s32, :f32, :f64, :s64, :f16]
      iex> ExCubecl.DType.Suggestion.find(:f8)
      nil
  """
  @spec find(term) :: atom
  def find({kind, bits}) when is_atom(kind) and is_integer(bits),
    do: find("#{kind}#{Text.show(bits)}")

  def find(term) when is_atom(term) and term != nil, do: find(Atom.to_string(term))

  def find(text) when is_binary(text) and byte_size(text) <= 40 do
    if String.valid?(text) do
      name = text |> String.downcase() |> String.split(".") |> List.last() |> String.trim()
      @names[name] || numpy(name) || numbered(String.replace(name, ~r/[_\s-]/, ""))
    end
  end

  def find(_other), do: nil

  defp numpy(name) do
    with [_, kind, bytes] <- Regex.run(~r/\A[<>=|]([fiub])([1248])\z/, name),
         do: type(@of_bytes[kind], 8 * String.to_integer(bytes))
  end

  defp numbered(name) do
    case Regex.run(~r/\A([a-z]+)(8|16|32|64)\z/, name) do
      [_, kind, bits] -> type(@kinds[kind], bits)
      nil -> @names[name]
    end
  end

  defp type(kind, bits), do: Enum.find(Table.all(), &(Atom.to_string(&1) == "#{kind}#{bits}"))
end
