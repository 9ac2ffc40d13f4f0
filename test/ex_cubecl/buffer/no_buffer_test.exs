defmodule ExCubecl.NoBufferTest do
  # A term that is not a buffer, passed to every function that takes one.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.Calls

  setup do
    buffer = ExCubecl.buffer!([0.5], [1], :f32)

    junk = [
      nil,
      1,
      "buffer",
      [],
      %{},
      self(),
      make_ref(),
      buffer.ref,
      Map.from_struct(buffer),
      [buffer],
      %Error{reason: :x},
      %{buffer | ref: nil},
      %{buffer | ref: self()},
      %{buffer | dtype: "f32"},
      %{buffer | dtype: :f8},
      %{buffer | shape: nil},
      %{buffer | shape: {1}},
      %{buffer | shape: [-1]},
      %{buffer | shape: [1 | 2]},
      %{buffer | shape: [Integer.pow(2, 62), 8]},
      %{buffer | device: nil},
      %{buffer | device: 5}
    ]

    %{buffer: buffer, junk: junk}
  end

  test "the table of calls holds every public function", %{buffer: buffer} do
    table = Calls.touching(buffer) ++ Calls.pure() ++ Calls.identity() ++ Calls.predicates(buffer)
    known = Enum.map(table, &elem(&1, 0)) ++ Calls.none()

    for module <- [ExCubecl, Buffer], {name, _} <- module.__info__(:functions) do
      plain = name |> to_string() |> String.trim_trailing("!") |> String.to_atom()
      assert plain in known, "nothing here calls #{inspect(module)}.#{name}"
    end
  end

  test "functions that return a tuple return an error", %{buffer: buffer, junk: junk} do
    for {_name, call} <- Calls.touching(buffer) ++ Calls.pure() ++ Calls.identity(),
        term <- junk,
        do: refused(call.(term), :invalid_argument, says: "expected")

    # A reference that is not a buffer's is detected when it is used.
    for {_name, call} <- Calls.touching(buffer) ++ Calls.identity(),
        do: refused(call.(%{buffer | ref: make_ref()}), :invalid_argument, says: "expected")

    assert Buffer.to_list!(buffer) == [0.5]
  end

  test "predicates raise", %{buffer: buffer, junk: junk} do
    for {_name, call} <- Calls.predicates(buffer),
        term <- [%{buffer | ref: make_ref()} | junk],
        do: raises(:invalid_argument, fn -> call.(term) end)
  end

  test "twins with a bang raise", %{buffer: buffer, junk: junk} do
    for term <- [%{buffer | ref: make_ref()} | junk] do
      raises(:invalid_argument, fn -> Buffer.read!(term) end)
      raises(:invalid_argument, fn -> ExCubecl.to_list!(term) end)
      raises(:invalid_argument, fn -> Buffer.write!(term, [1]) end)
      raises(:invalid_argument, fn -> Buffer.copy!(buffer, term) end)
      raises(:invalid_argument, fn -> Buffer.view!(term, 0, [1]) end)

      for name <- [:id!, :storage_id!, :total_size!, :ref_count!],
          do: raises(:invalid_argument, fn -> apply(Buffer, name, [term]) end)
    end
  end

  test "a tuple is a device for synchronize, and otherwise nothing" do
    for tuple <- [{}, {:vulkan, 99}, {:vulkan, 0, 0}, {:opencl, 0}],
        do: refused(Buffer.synchronize(tuple), :unknown_device)

    {:ok, device} = Device.info(nil)
    assert Buffer.synchronize(device) == :ok
    assert Buffer.synchronize(device.id) == :ok
  end

  test "lists of buffers that are none", %{buffer: buffer, junk: junk} do
    for term <- [buffer, [buffer | buffer], nil, {buffer}, %{a: buffer}],
        do: refused(Buffer.read_all(term), :invalid_argument)

    for term <- junk, do: refused(Buffer.read_all([buffer, term, buffer]), :invalid_argument)
    refused(Buffer.read_all([buffer, Buffer.empty!([1], :u8)]), :not_allocated)
  end

  test "a struct that claims to be more than it is makes no list of what is not there" do
    buffer = Buffer.full!([2], :u8, 7)

    for shape <- [[9_007_199_254_740_993, 6], [1_000_000_000], [3, 1], [], [2, 0], [0], [1, 4, 1]] do
      refused(Buffer.to_list(%{buffer | shape: shape}), :shape_mismatch)
    end

    assert Buffer.to_list!(%{buffer | shape: [2, 1]}) |> List.flatten() == [7, 7]
  end

  test "a struct that claims to be more than it is never gets at other bytes", %{buffer: buffer} do
    # Neighbours in memory, whose values would be read if bounds were taken from the struct. The value is negative
    # because no reference or pid is printed with a minus.
    neighbours = for _ <- 1..20, do: Buffer.full!([3], :f32, -777.25)

    for forged <- [
          %{buffer | shape: [100]},
          %{buffer | dtype: :f64},
          %{buffer | shape: [100_000]}
        ] do
      for {_name, call} <- Calls.touching(Buffer.zeros!([1], :f32)) do
        refute inspect(call.(forged), limit: :infinity) =~ "-777.25"
      end

      refute inspect(forged) =~ "-777.25"
    end

    for neighbour <- neighbours,
        do: assert(Buffer.to_list!(neighbour) == [-777.25, -777.25, -777.25])
  end
end
