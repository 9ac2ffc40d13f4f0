# What the tests, the examples of the documents, other VMs and browsers write into the directory for temporary files is removed with this one.
temporary = Path.join(System.tmp_dir!(), "ex_cubecl_tests_#{System.pid()}")
File.mkdir_p!(temporary)
System.put_env("TMPDIR", temporary)
System.at_exit(fn _ -> File.rm_rf(temporary) end)

# Modules of tests, of other VMs too, run for a short time: the compiler's optimizations take longer than they save.
System.put_env("ERL_COMPILER_OPTIONS", "[no_ssa_opt]")

# `EX_CUBECL_TEST_DEVICE=cuda:0` runs the suite on another device than the default one.
if device = System.get_env("EX_CUBECL_TEST_DEVICE"),
  do: System.put_env("EX_CUBECL_DEVICE", device)

case ExCubecl.Device.default() do
  {:ok, {runtime, _}} ->
    skipped =
      [
        cuda: {runtime == :cuda, "they need a CUDA device"},
        nx: {ExCubecl.NxLibraries.directories(), ExCubecl.NxLibraries.why_not()},
        without_nx: {not ExCubecl.NxLibraries.dependency?(), "Nx is loaded"},
        browser:
          {ExCubecl.Browser.there?(),
           "there is no Chromium with chromedriver (Debian: chromium-driver)"},
        numpy: {ExCubecl.NumpyCases.python(), "no Python has NumPy (make numpy installs one)"}
      ]
      |> Enum.reject(fn {_tag, {possible, _why}} -> possible end)

    for {tag, {_, why}} <- skipped, do: IO.puts("Skipping tests tagged #{inspect(tag)}: #{why}")
    # A message that has to come may come late on a busy machine.
    ExUnit.start(
      exclude: Keyword.keys(skipped),
      timeout: 600_000,
      assert_receive_timeout: 60_000
    )

  {:error, error} ->
    IO.puts(:stderr, "The tests need a device: " <> Exception.message(error))
    System.halt(1)
end
