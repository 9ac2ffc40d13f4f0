defmodule ExCubecl.ErrorTest do
  # Every reason is documented and has a message.
  use ExUnit.Case, async: true

  alias ExCubecl.Error

  @details %{
    invalid_shape: %{shape: [-1]},
    shape_mismatch: %{expected: 1, actual: 2, shape: [1]},
    invalid_value: %{index: 3, value: :x, dtype: :s16},
    unsupported_dtype: %{dtype: :f8},
    loop_limit: %{device: {:vulkan, 0}},
    type_mismatch: %{expected: :f32, actual: :u8},
    out_of_bounds: %{offset: 1, count: 2, size: 2},
    overlap: %{},
    not_allocated: %{},
    too_large: %{requested: 200_000_000, limit: 100, device: {:vulkan, 0}},
    out_of_memory: %{requested: 10, available: 5, device: {:cuda, 1}},
    limit_exceeded: %{requested: 10, live: 95, limit: 100, device: {:vulkan, 0}},
    pool_exhausted: %{max: 3},
    stale: %{},
    node_down: %{node: :a@b},
    no_device: %{reason: "nothing was found"},
    unknown_device: %{device: {:vulkan, 9}, known: [{:vulkan, 0}]},
    device_in_use: %{device: {:vulkan, 7}, live_buffers: 2},
    device_lost: %{device: {:vulkan, 0}},
    unsupported: %{operation: "pointer", device: {:vulkan, 0}},
    invalid_argument: %{argument: :offset, value: -1, expected: "a non-negative integer"},
    file: %{operation: :read, path: "x.npy", posix: :enoent},
    invalid_file: %{path: "x.npy", format: :npy, problem: "it has no header"},
    timeout: %{timeout: 10},
    busy: %{},
    driver: %{message: "broke"},
    nif_not_loaded: %{path: "/x.so", load_error: "not there"}
  }

  test "each reason of the table has words of its own, with its numbers" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Error)

    documented =
      for [_, reason] <- Regex.scan(~r/^\| `:(\w+)` \|/m, doc),
          do: String.to_existing_atom(reason)

    assert Enum.sort(documented) == @details |> Map.keys() |> Enum.sort()

    for reason <- documented do
      message = Exception.message(%Error{reason: reason, details: @details[reason]})
      refute message =~ "%{", "#{reason} has no words: #{message}"

      for number when is_integer(number) <- Map.values(@details[reason]),
          do: assert(message =~ "#{number}")
    end
  end

  test "a twin with a bang raises what the other returns" do
    {:error, error} = ExCubecl.buffer([1], [2], :u8)
    assert catch_error(ExCubecl.buffer!([1], [2], :u8)) == error

    assert_raise Error, "buffer: shape [2] needs 2 elements, but the data has 1", fn ->
      ExCubecl.buffer!([1], [2], :u8)
    end
  end
end
