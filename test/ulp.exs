# `make ulp`: the largest errors of the functions of floats, as a table for guides/kernels.md. The numbers are those of every ULP_STEP-th pattern of bits of
# `:f32`, and as many patterns of `:f64`, which begin with the same bits.
alias ExCubecl.Ulp

{step, ""} = Integer.parse(System.get_env("ULP_STEP", "65521"))
chunk = 65_536

numbers = fn size ->
  0..div(0xFFFF_FFFF, step)
  |> Stream.map(&(&1 * step))
  |> Stream.flat_map(fn bits ->
    pattern =
      if size == 32, do: <<bits::32>>, else: <<bits::32, :erlang.phash2(bits, 4_294_967_296)::32>>

    for <<x::float-size(size) <- pattern>>, do: x
  end)
  |> Stream.chunk_every(chunk)
end

{:ok, %{dtypes: dtypes}} = ExCubecl.Device.info(nil)
types = for {type, size} <- [f32: 32, f64: 64], type in dtypes, do: {type, size}
IO.puts("| function | " <> Enum.map_join(types, " | ", &"`:#{elem(&1, 0)}`, at") <> " |")
IO.puts("|---|" <> String.duplicate("---|", length(types)))

for {name, reference} <- Ulp.references() do
  cells =
    for {type, size} <- types do
      {error, x, _y} =
        size
        |> numbers.()
        |> Enum.map(&Ulp.worst(name, reference, type, &1))
        |> Enum.max_by(&elem(&1, 0))

      "#{Float.round(error, 3)}, #{x}"
    end

  IO.puts("| `#{name}` | #{Enum.join(cells, " | ")} |")
end
