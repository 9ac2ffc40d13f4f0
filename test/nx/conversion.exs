defmodule ExCubecl.NxConversionTest do
  use ExUnit.Case, async: true

  @types [f: 32, f: 64, f: 16, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  test "tensors become buffers and come back" do
    for type <- @types, shape <- [{}, {1}, {2, 3}, {2, 1, 4}] do
      tensor = Nx.iota(shape, type: type)
      {:ok, buffer} = ExCubecl.Nx.from_tensor(tensor)
      {:ok, back} = ExCubecl.Nx.to_tensor(buffer)

      assert {back.type, back.shape, Nx.to_binary(back)} == {type, shape, Nx.to_binary(tensor)}
      assert ExCubecl.shape!(buffer) == Tuple.to_list(shape)
    end
  end

  # Conversion gives the same bits as Nx, except that Nx does not round to bf16, and wraps floats around.
  test "conversion gives the bits of Nx" do
    odd = Nx.tensor([1.5, -1.0, 300.7, 65504.0, 3.0e38, -0.0], type: :f32)
    buffer = ExCubecl.Nx.from_tensor!(odd)

    for {type, dtype} <- [{{:f, 16}, :f16}, {{:f, 64}, :f64}] do
      converted = ExCubecl.Nx.to_tensor!(ExCubecl.Buffer.convert!(buffer, dtype))
      assert {dtype, Nx.to_binary(converted)} == {dtype, Nx.to_binary(Nx.as_type(odd, type))}
    end

    back = ExCubecl.Nx.to_tensor!(buffer, backend: Nx.BinaryBackend)
    assert Nx.to_flat_list(back) == Nx.to_flat_list(odd)
  end

  test "what is refused" do
    named = Nx.iota({2, 2}, names: [:x, :y], type: :s32)
    buffer = ExCubecl.Nx.from_tensor!(named, tag: :nx)
    assert ExCubecl.to_list!(buffer) == [[0, 1], [2, 3]]

    complex = ExCubecl.Nx.from_tensor(Nx.tensor(Complex.new(1, 2)))
    assert {:error, %{reason: :unsupported_dtype}} = complex

    for call <- [
          fn -> ExCubecl.Nx.from_tensor([1, 2]) end,
          fn -> ExCubecl.Nx.from_tensor(Nx.vectorize(named, :v)) end,
          fn -> ExCubecl.Nx.to_tensor(:nothing) end,
          fn -> ExCubecl.Nx.to_tensor(buffer, backend: Nx.BinaryBackend, x: 1) end
        ],
        do: assert({:error, %{reason: :invalid_argument}} = call.())

    empty = ExCubecl.Buffer.empty!([1], :u8)
    assert {:error, %{reason: :not_allocated}} = ExCubecl.Nx.to_tensor(empty)
  end
end
