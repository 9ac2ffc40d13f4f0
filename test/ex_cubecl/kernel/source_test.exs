defmodule ExCubecl.SourceTest do
  # Kernels in WGSL.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.Kernel

  defp source!(body, more \\ "", size \\ 64) do
    Kernel.source!(
      wgsl: """
      @group(0) @binding(0) var<storage, read> x: array<u32>;
      @group(0) @binding(1) var<storage, read_write> out: array<u32>;
      #{more}
      @compute @workgroup_size(#{size}) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        #{body}
      }
      """
    )
  end

  defp u32(list), do: ExCubecl.buffer!(list, [length(list)], :u32)

  test "a source runs on buffers, and in order with everything else" do
    twice = source!("if (id.x < arrayLength(&out)) { out[id.x] = 2u * x[id.x]; }")
    x = u32(Enum.to_list(1..1000))
    out = Buffer.empty!([1000], :u32)
    assert Kernel.run(twice, [x, out], groups: 16) == :ok
    assert ExCubecl.to_list!(out) == for(n <- 1..1000, do: 2 * n)

    for n <- 1..50 do
      Buffer.fill!(x, n)
      Kernel.run!(twice, [x, out], groups: {16, 1})
      more = ExCubecl.Ops.add!(out, 1)
      assert ExCubecl.item!(Buffer.view!(more, 999, [1])) == 2 * n + 1
    end

    assert Kernel.run(twice, [x, out], groups: 0) == :ok
  end

  test "nothing outside of the buffers is read or written, wherever they are" do
    # Far out of bounds on both sides: an index is taken modulo 2^32.
    wild =
      source!("""
      for (var n = 0u; n < 70u; n++) {
        out[id.x * 7u + n * 40000000u] = 0xDEADBEEFu;
        out[id.x + n] = x[id.x + n * 70000000u] + x[id.x + 64u + n];
      }
      """)

    for dtype <- [:u8, :u32], from <- [0, 1, 3, 4, 64, 100], count <- [1, 2, 5, 64, 77] do
      around = Buffer.full!([300], dtype, 7)
      secret = Buffer.full!([300], dtype, 9)
      x = Buffer.view!(secret, from, [count])
      Buffer.fill!(x, 0)
      out = Buffer.view!(around, from, [count])
      assert Kernel.run(wild, [x, out], groups: 4) == :ok
      list = ExCubecl.to_list!(around)
      assert Enum.take(list, from) == List.duplicate(7, from), inspect({dtype, from, count})
      rest = Enum.drop(list, from + count)
      assert rest == List.duplicate(7, 300 - from - count), inspect({dtype, from, count})
      # Values are read from x, which is all 0, or are 0xDEADBEEF, which was written.
      refute 9 in Enum.slice(list, from, count)
    end
  end

  test "views that nothing can be bound to take part as copies" do
    copy = source!("if (id.x < arrayLength(&out)) { out[id.x] = x[id.x]; }")
    bytes = ExCubecl.buffer!(Enum.map(0..255, & &1), [256], :u8)
    out = Buffer.full!([256], :u8, 255)

    assert Kernel.run(copy, [Buffer.view!(bytes, 3, [101]), Buffer.view!(out, 7, [101])],
             groups: 1
           ) == :ok

    expected = List.duplicate(255, 7) ++ Enum.to_list(3..103) ++ List.duplicate(255, 148)
    assert ExCubecl.to_list!(out) == expected
  end

  test "errors in a source have its line" do
    head = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\n"
    main = "@compute @workgroup_size(64) fn main() { x[0] = 1.0; }"

    for {text, opts, part} <- [
          {"fn main( {", [], "line 1"},
          {head <> "@compute @workgroup_size(64) fn main() { x[0] = 1u; }", [], "line 2"},
          {head <> "\n@compute @workgroup_size(64) fn main() { y[0] = 1.0; }", [], "line 3"},
          {head <> "@compute @workgroup_size(64) fn main() { x[0] = sqrt(); }", [], "line 2"},
          {head <> main, [entry: "start"], "no entry point start: there is main"},
          {head <> main, [workgroup: 128], "not [128, 1, 1]"},
          {head <> main, [workgroup: {8, 8}], "not [8, 8, 1]"},
          {head <> "@fragment fn main() {}", [], "no compute shader"},
          {head, [], "no entry point: write @compute"},
          {"@compute @workgroup_size(1) fn main() {}", [], "needs a buffer"},
          {head <> "@compute @workgroup_size(100000) fn main() {}", [], "out of range"},
          {String.replace(head, "binding(0)", "binding(1)") <> main, [], "not 0, 1, 2"},
          {String.replace(head, "group(0)", "group(1)") <> main, [], "@group(0)"},
          {"@group(0) @binding(0) var<uniform> x: array<vec4<f32>, 4>;\n@compute @workgroup_size(1) fn main() {}",
           [], "no buffer"}
        ] do
      error = refused(Kernel.source([wgsl: text] ++ opts), :invalid_argument)
      assert Exception.message(error) =~ part, "#{text}: #{Exception.message(error)}"
    end

    # Longer than a terminal: a name of the source is quoted.
    long =
      head <>
        "@compute @workgroup_size(1) fn main() { x[0] = #{String.duplicate("a", 100_000)}; }"

    error = refused(Kernel.source(wgsl: long), :invalid_argument)
    assert Exception.message(error) =~ ~r/line 2, column 48: .*aaa\.\.\.\z/
    assert byte_size(Exception.message(error)) < 2_000

    assert {:ok, _} = Kernel.source(wgsl: head <> main, workgroup: 64)
    assert {:ok, _} = Kernel.source(wgsl: head <> main, workgroup: {64, 1, 1})
    for text <- [nil, "", 7, <<255>>], do: refused(Kernel.source(wgsl: text), :invalid_argument)
    refused(Kernel.source(glsl: main), :invalid_argument)
    refused(Kernel.source(wgsl: head <> main, workgroup: {0, -1}), :invalid_argument)
    refused(Kernel.source(wgsl: head <> main, workgroup: "64"), :invalid_argument)
    refused(Kernel.source(cuda: "__global__ void main() {}"), :unsupported)
  end

  test "errors of a run are returned before it" do
    twice = source!("if (id.x < arrayLength(&out)) { out[id.x] = 2u * x[id.x]; }")
    [x, out] = [u32([1, 2, 3]), u32([7, 7, 7])]

    for {args, opts, reason} <- [
          {[x], [groups: 1], :invalid_argument},
          {[], [groups: 1], :invalid_argument},
          {[x, out, out], [groups: 1], :invalid_argument},
          {[x, 2], [groups: 1], :invalid_argument},
          {:both, [groups: 1], :invalid_argument},
          {[x, out], [], :invalid_argument},
          {[x, out], [groups: -1], :invalid_argument},
          {[x, out], [groups: {1, 2, 3, 4}], :invalid_argument},
          {[x, out], [groups: 65_536], :invalid_argument},
          {[x, out], [size: 1], :invalid_argument},
          {[x, x], [groups: 1], :overlap},
          {[u32([]), out], [groups: 1], :invalid_argument},
          {[Buffer.empty!([3], :u32), out], [groups: 1], :not_allocated}
        ] do
      refused(Kernel.run(twice, args, opts), reason)
    end

    # More threads than a workgroup can have on the device: the error names the number.
    huge = source!("out[id.x] = 1u;", "", 4096)
    error = refused(Kernel.run(huge, [x, out], groups: 1), :invalid_argument)
    assert Exception.message(error) =~ "4096"
    assert ExCubecl.to_list!(out) == [7, 7, 7]
    assert Kernel.run(twice, [x, out], groups: 1) == :ok
    assert ExCubecl.to_list!(out) == [2, 4, 6]
  end
end
