# `make numpy`: runs random programs on the device and compares the results with NumPy's.
#
#     mix run test/numpy/compare.exs [programs] [seed]
#
# PYTHON is the path of an interpreter with NumPy. EX_CUBECL_DEVICE selects the device.
{count, seed} =
  case Enum.map(System.argv(), &String.to_integer/1) do
    [] -> {4_000, System.system_time(:second)}
    [count] -> {count, System.system_time(:second)}
    [count, seed] -> {count, seed}
  end

path = Path.join(System.tmp_dir!(), "ex_cubecl_numpy_#{System.pid()}.txt")
IO.puts("#{count} programs, seed #{seed}")

status =
  try do
    ExCubecl.NumpyCases.write(path, count, seed)
    python = System.get_env("PYTHON") || "python3"
    reference = Path.expand("main.py", __DIR__)
    {_, status} = System.cmd(python, [reference, path], into: IO.stream(:stdio, :line))
    status
  after
    File.rm(path)
  end

if status != 0, do: System.halt(1)
