defmodule ExCubecl.LibraryTest do
  # The native library: it has all functions, and errors are clear if the library or a device is missing.
  use ExCubecl.Case, async: true

  test "every stub has its function in the library" do
    for {name, arity} <- ExCubecl.Native.__info__(:functions),
        name not in [:load, :library_path, :load_error] do
      result =
        try do
          apply(ExCubecl.Native, name, List.duplicate(:junk, arity))
        rescue
          error -> error
        end

      refute match?(%ErlangError{original: :nif_not_loaded}, result), "#{name}/#{arity}"
    end
  end

  test "without the library every call says which file is missing and how to build it" do
    script = ~S"""
    {:error, error} = ExCubecl.buffer([1], [1], :u8)
    IO.puts(error.reason)
    IO.puts(Exception.message(error))
    IO.inspect({ExCubecl.available?(), match?({:error, _}, ExCubecl.devices()), ExCubecl.version()})
    """

    {out, errors, status} = in_own_vm(script, [{"EX_CUBECL_NIF", "/nowhere/ex_cubecl.so"}])
    assert {status, errors} == {0, ""}
    assert out =~ "nif_not_loaded"
    assert out =~ "/nowhere/ex_cubecl" and out =~ "mix compile"
    assert out =~ ~s({false, true, "#{ExCubecl.version()}"})
  end

  test "without a device every call says what to install" do
    script = ~S"""
    {:error, error} = ExCubecl.buffer([1], [1], :u8)
    IO.puts(error.reason)
    IO.puts(Exception.message(error))
    IO.inspect({ExCubecl.available?(), ExCubecl.device_count()})
    """

    nothing = for name <- ~w(VK_ICD_FILENAMES VK_DRIVER_FILES), do: {name, "/dev/null"}

    {out, errors, status} =
      in_own_vm(script, [{"EX_CUBECL_DEVICE", nil}, {"CUDA_VISIBLE_DEVICES", ""} | nothing])

    assert {status, errors} == {0, ""}
    assert out =~ "no_device" and out =~ "mesa-vulkan-drivers"
    assert out =~ "{false, {:ok, 0}}"
  end

  test "the formatter of a project that imports ours leaves defkernel without parentheses" do
    {options, _} = Code.eval_file(".formatter.exs")

    code =
      "defkernel double(x), do: x * 2\n\ndefkernel sum(x, out), group: 64 do\n  out[0] = x[0]\nend"

    formatted = Code.format_string!(code, Keyword.fetch!(options, :export))
    assert IO.iodata_to_binary(formatted) == code
  end

  test "nothing is ever written to the terminal" do
    script = ~S"""
    {:ok, buffer} = ExCubecl.buffer([1.0, 2.0], [2], :f32)
    {:error, _} = ExCubecl.Buffer.empty([1_000_000_000_000_000], :u8)
    :ok = ExCubecl.Buffer.fill(buffer, 2)
    {:ok, _} = ExCubecl.read(buffer)
    """

    assert in_own_vm(script, []) == {"", "", 0}
  end

  test "where there is no memory left that is an error, and everything goes on" do
    # The limit is set in the operating system, so that the driver itself runs out of memory.
    script = ~S"""
    alias ExCubecl.Buffer
    kept = ExCubecl.buffer!([1, 2, 3], [3], :u8)
    fill = fn fill, buffers ->
      case Buffer.full([64 * 1_048_576], :u8, 7) do
        {:ok, buffer} when length(buffers) < 200 -> fill.(fill, [buffer | buffers])
        {:error, error} -> {error.reason, buffers}
      end
    end
    {:out_of_memory, buffers} = fill.(fill, [])
    true = length(buffers) > 2
    # The rest of the VM takes more of the remaining memory, and existing buffers can still be read.
    grown = :binary.copy(<<1>>, 128 * 1_048_576)
    true = Enum.all?(buffers, &(Buffer.read_part!(&1, 67_108_863, 1) == <<7>>))
    # Reading a whole buffer needs the same amount of memory again.
    case Buffer.read(hd(buffers)) do
      {:ok, bytes} -> 67_108_864 = byte_size(bytes)
      {:error, error} -> :out_of_memory = error.reason
    end
    [1, 2, 3] = ExCubecl.to_list!(kept)
    {:ok, _} = ExCubecl.buffer([1.0], [1], :f32)
    134_217_728 = byte_size(grown)
    IO.puts("survived")
    """

    {:ok, {runtime, _}} = Device.default()

    if :os.type() == {:unix, :linux} and runtime == :vulkan and
         match?({:ok, %{kind: :cpu}}, Device.info(nil)) do
      assert {"survived\n", "", 0} = in_own_vm(script, [], "ulimit -v 6000000; ")
    end
  end

  test "limits of the configuration hold from the first use on" do
    script = ~S"""
    Application.put_env(:ex_cubecl, :memory_limit, 1000)
    {:error, error} = ExCubecl.buffer(:binary.copy(<<1>>, 1001), [1001], :u8)
    IO.puts(error.reason)
    IO.inspect(ExCubecl.Memory.usage!().limit)
    """

    assert {out, "", 0} = in_own_vm(script, [])
    assert out == "limit_exceeded\n1000\n"

    script = ~S"""
    Application.put_env(:ex_cubecl, :memory_limit, %{"vulkan:0" => 500, {:cuda, 0} => 10})
    IO.inspect(ExCubecl.Memory.usage!(device: "vulkan:0").limit)
    """

    assert {"500\n", "", 0} = in_own_vm(script, [])

    script = ~S"""
    Application.put_env(:ex_cubecl, :memory_limit, %{"vulkan:0" => -1})
    {:error, error} = ExCubecl.buffer([1], [1], :u8)
    IO.puts(Exception.message(error))
    """

    assert {out, "", 0} = in_own_vm(script, [])
    assert out =~ "memory_limit" and out =~ "config :ex_cubecl"
  end
end
