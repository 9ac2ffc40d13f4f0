# make many-kernels: MANY_KERNELS (100000) different kernels in one VM, and its resident memory, which must stay under 1 GB.
count = String.to_integer(System.get_env("MANY_KERNELS") || "100000")
IO.puts("#{count} kernels in process #{System.pid()}")

ExCubecl.ManyKernels.run(1..count, fn number ->
  if rem(number, max(div(count, 20), 1)) == 0 do
    %{now: now, most: most} = ExCubecl.ManyKernels.resident()

    IO.puts(
      "#{number}: #{now} MiB resident, at most #{most}; #{inspect(ExCubecl.Kernel.cache!())}"
    )
  end
end)

%{most: most} = ExCubecl.ManyKernels.resident()
if most > 1000, do: raise("#{most} MiB were resident")
IO.puts("passed: at most #{most} MiB were resident")
