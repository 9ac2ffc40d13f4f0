defmodule ExCubecl.ModelTest do
  # Random sequences of every call on buffers, each compared with a model of plain binaries.
  # EX_CUBECL_MODEL_TESTS sets the number of sequences.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Conversion, Model}

  @moduletag timeout: :infinity

  if Code.ensure_loaded?(:proper) do
    test "buffers behave like plain binaries" do
      sequences = String.to_integer(System.get_env("EX_CUBECL_MODEL_TESTS") || "2000")

      property =
        :proper.forall(:proper_statem.commands(Model), fn commands ->
          {history, state, result} = :proper_statem.run_commands(Model, commands)
          passed = result == :ok and all_alike?(state)
          unless passed, do: report(commands, history, result)
          passed
        end)

      before = settled()
      assert :proper.quickcheck(property, [:quiet, numtests: sequences, max_size: 60]) == true
      eventually(before)
    end

    defp all_alike?(state) do
      Enum.all?(state.handles, fn {buffer, at} ->
        {total, content} = state.storages[at.storage]
        size = at.count * ExCubecl.DType.size!(at.dtype)

        case {Buffer.read(buffer), content} do
          {{:ok, ""}, _} when size == 0 ->
            Buffer.allocated?(buffer) == (content != :lazy or total == 0)

          {{:ok, bytes}, content} when is_binary(content) ->
            bytes == binary_part(content, at.start, size)

          {{:error, %Error{reason: :not_allocated}}, :lazy} ->
            true

          _ ->
            false
        end
      end)
    end

    defp report(commands, history, result) do
      calls = for {:set, _, {:call, _, _, call}} <- commands, do: call

      IO.puts(
        "\nAfter #{length(history)} of #{length(calls)} calls: #{inspect(result, limit: 20)}"
      )

      for call <- calls, do: IO.puts("  " <> inspect(call, limit: 30))
    end
  else
    IO.puts("Skipping the model test: PropEr is not installed (Debian: erlang-proper)")
    @tag :skip
    test "buffers behave like plain binaries"
  end

  test "the model decodes what it encodes" do
    for dtype <- ExCubecl.DType.all(), bits <- [0, 1, 2, 77, 127] do
      assert Conversion.bits(Conversion.value(bits, dtype), dtype) == bits
    end
  end
end
