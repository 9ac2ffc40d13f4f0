defmodule ExCubecl.MistakesTest do
  # What users of Elixir, Nx, PyTorch, CuPy and Julia type by mistake, with a part of the message that says what to do. A call returns an error, and raises nothing else.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, ArgumentAttack}

  defmodule K do
    use ExCubecl.Kernel

    defkernel saxpy(a, x, y), do: a * x + y

    defkernel blur(input, output) do
      i = index()

      if i > 0 and i < len(input) - 1 do
        output[i] = (input[i - 1] + input[i] + input[i + 1]) / 3
      end
    end

    defkernel bits(x), do: band(x, 1)
  end

  # Calls and parts of their messages, one a line.
  @topics Path.wildcard(Path.join(__DIR__, "mistakes/*.txt"))

  @before """
  alias ExCubecl.{Arena, Batch, Buffer, Data, Device, Kernel, LinAlg, Memory, Ops, Pool, Random, Replicated, View}
  alias ExCubecl.MistakesTest.K
  _ = [Arena, Batch, Buffer, Data, Device, Kernel, LinAlg, Memory, Ops, Pool, Random, Replicated, View, K]
  """

  setup_all do
    [x, v, w] = for shape <- [[2, 3], [3], [3]], do: Buffer.iota!(shape, :f32)
    i = Buffer.iota!([3], :s32)
    img = Buffer.zeros!([1, 3, 8, 8], :f32)
    ker = Buffer.zeros!([2, 3, 3, 3], :f32)
    rep = ExCubecl.Replicated.from!([1, 2], [2], :u8)
    arena = Arena.new!(100, dtype: :f32)
    {:ok, binding: [x: x, v: v, w: w, i: i, img: img, ker: ker, rep: rep, arena: arena]}
  end

  for topic <- @topics do
    @external_resource topic

    test Path.basename(topic, ".txt"), %{binding: binding} do
      for line <- String.split(unquote(File.read!(topic)), "\n", trim: true) do
        [code, expected] = String.split(line, "###") |> Enum.map(&String.trim/1)
        {result, _} = Code.eval_string(@before <> code, binding)
        assert {code, {:error, %Error{} = error}} = {code, result}
        message = Exception.message(error)
        assert message =~ expected, "#{code}: #{message}"
        assert String.printable?(message) and String.length(message) < 600, code
        assert named?(message, code), "#{code}: #{message}"
      end
    end
  end

  test "an index in brackets" do
    x = Buffer.iota!([3], :f32)

    for index <- [0, -1, 0..1, {0, 1}] do
      error = assert_raise Error, fn -> x[index] end

      assert Exception.message(error) =~
               ~r/^buffer\[.*\]: .*ExCubecl.Buffer.read_part\/3 .*ExCubecl.View.slice\/4/
    end
  end

  # One of the functions that are called.
  defp named?(message, code) do
    [_ | _] = calls = Regex.scan(~r/\.([a-z_]+)[!?]?\(/, code, capture: :all_but_first)
    Enum.any?(List.flatten(calls), &ArgumentAttack.named?(message, &1))
  end
end
