# `EX_CUBECL_TEST_DEVICE=cuda:0` runs the suite on another device than the default one.
if device = System.get_env("EX_CUBECL_TEST_DEVICE"),
  do: System.put_env("EX_CUBECL_DEVICE", device)

case ExCubecl.Device.default() do
  {:ok, {runtime, _}} ->
    excluded = if runtime == :cuda, do: [], else: [:cuda]

    for tag <- excluded,
        do: IO.puts("Skipping tests tagged #{inspect(tag)}: they need a CUDA device")

    ExUnit.start(exclude: excluded, timeout: 120_000)

  {:error, error} ->
    IO.puts(:stderr, "The tests need a device: " <> Exception.message(error))
    System.halt(1)
end
