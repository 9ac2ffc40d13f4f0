defmodule ExCubecl.DType.SuggestionTest do
  # The message for a name of an element type in another library names the type that is meant.
  use ExCubecl.Case, async: true

  alias ExCubecl.DType.Suggestion

  doctest Suggestion

  for {names, dtype} <- [
        {[:f16, {:f, 16}, :half, "float16", :fp16, "<f2", "torch.float16", "np.float16"], :f16},
        {[{:bf, 16}, :bfloat16, "torch.bfloat16", "BF16"], :bf16},
        {[{:f, 32}, "f32", :F32, :float32, :float, :single, "<f4", "torch.float", "np.float32"],
         :f32},
        {[{:f, 64}, :float64, :double, "numpy.double", ">f8", "np.float64"], :f64},
        {[{:s, 8}, :i8, :int8, "|i1", :char], :s8},
        {[{:s, 16}, :i16, :short, "<i2", "torch.int16"], :s16},
        {[{:s, 32}, :i32, :int32, :int, "<i4", :integer, "int_32"], :s32},
        {[{:s, 64}, :i64, :int64, :long, "torch.long", "<i8"], :s64},
        {[{:u, 8}, :uint8, :bool, :byte, "|b1", "|u1", "torch.uint8"], :u8},
        {[:uint16, :ushort, "<u2"], :u16},
        {[:uint32, :uint, "<u4"], :u32},
        {[:uint64, :ulong, "np.uint64"], :u64}
      ],
      name <- names,
      name != dtype do
    test "#{inspect(name)} is #{dtype}" do
      {:error, error} = ExCubecl.buffer([1], [1], unquote(Macro.escape(name)))

      assert Exception.message(error) ==
               "buffer: #{inspect(unquote(Macro.escape(name)))} is no element type: did you mean :#{unquote(dtype)}? Expected one of " <>
                 ":f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64"
    end
  end

  test "no type is suggested for other terms" do
    for term <- [
          :f8,
          "complex64",
          {:c, 64},
          {:f, 8},
          nil,
          "",
          <<255>>,
          "d",
          [100],
          %{},
          {1, 2},
          :f3,
          {:f, 10 ** 400},
          String.duplicate("f", 10_000)
        ] do
      {:error, error} = ExCubecl.buffer([1], [1], term)
      assert Exception.message(error) =~ "is no element type: expected one of :f32"
    end
  end
end
