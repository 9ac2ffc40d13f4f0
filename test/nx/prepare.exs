# Starts a VM that has Nx: loads the modules that are compiled only where Nx is, and ExUnit. They are in the directory
# NX_MODULES, which the first VM with that directory fills; without it each VM compiles them in memory.

modules = System.get_env("NX_MODULES")
if modules, do: Code.prepend_path(modules)

# The protocols that Mix consolidated do not know the implementations of Nx.
for path <- :code.get_path(), Path.basename(path) == "consolidated" do
  :code.del_path(path)

  for beam <- Path.wildcard("#{path}/*.beam") do
    protocol = beam |> Path.basename(".beam") |> String.to_atom()
    :code.purge(protocol)
    :code.delete(protocol)
  end
end

{:ok, _} = Application.ensure_all_started(:nx)
{:ok, _} = Application.ensure_all_started(:ex_cubecl)

unless Code.ensure_loaded?(ExCubecl.Backend) do
  root = Path.expand("../..", __DIR__)
  # The version of the package is that of its project.
  Mix.start()
  Code.put_compiler_option(:ignore_module_conflict, true)
  files = Path.wildcard(root <> "/lib/ex_cubecl/{nx,compiler}/**/*.ex")
  names = ["ex_cubecl", "ex_cubecl/backend", "ex_cubecl/nx", "ex_cubecl/compiler"]
  public = for name <- names, do: "#{root}/lib/#{name}.ex"

  {:ok, _, warnings} =
    if modules,
      do: Kernel.ParallelCompiler.compile_to_path(files ++ public, modules),
      else: Kernel.ParallelCompiler.compile(files ++ public)

  if warnings != [], do: raise("compiling the modules for Nx gave warnings")
end

ExUnit.start(
  autorun: false,
  timeout: 1_800_000,
  assert_receive_timeout: 60_000,
  formatters: [ExUnit.CLIFormatter]
)
