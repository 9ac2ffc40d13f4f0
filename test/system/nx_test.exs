# The tests of the modules for Nx, in separate VMs: only there Nx and telemetry are loaded. The modules below run at the
# same time. Each test of a VM has a timeout there; all tests of a VM together may take any time on a busy machine.

defmodule ExCubecl.NxTest.Operations do
  use ExUnit.Case, async: true

  @moduletag :nx
  @moduletag timeout: :infinity

  @files ~w(conversion backend programs dot indexing random complex comparison type_pairs order windows bits float8 lin_alg scan training) ++
           ~w(semantics lifetime places guide)

  test "tensors, operations, training and memory", do: ExCubecl.NxVm.passes(@files)
end

defmodule ExCubecl.NxTest.Compiler do
  use ExUnit.Case, async: true

  @moduletag :nx
  @moduletag timeout: :infinity

  test "the compiler, random expressions, launches and shards",
    do: ExCubecl.NxVm.passes(~w(compiler compiler_graphs launches sharding))
end

defmodule ExCubecl.NxTest.Fusion do
  use ExUnit.Case, async: true

  @moduletag :nx
  @moduletag timeout: :infinity

  test "the kernels of compiled programs", do: ExCubecl.NxVm.passes(["fusion"])
end

defmodule ExCubecl.NxTest.Models do
  use ExUnit.Case, async: true

  @moduletag :nx
  @moduletag timeout: :infinity

  # The notebook shows the operations that fell back in its VM.
  test "the notebook", do: ExCubecl.NxVm.passes(["notebook"])
  test "servings and other nodes", do: ExCubecl.NxVm.passes(["serving"])
  test "programs of Axon, Scholar and Bumblebee", do: ExCubecl.NxVm.passes(["models"])

  test "programs of Axon, Scholar and Bumblebee, compiled",
    do: ExCubecl.NxVm.passes(["models"], [{"NX_COMPILER", "1"}])
end

defmodule ExCubecl.NxTest.Doctests do
  use ExUnit.Case, async: true

  alias ExCubecl.NxVm

  @moduletag :nx
  @moduletag timeout: :infinity

  # The results below differ from those of Nx.BinaryBackend, which calculates with 64-bit floats and rounds at the end, in the last digits.
  # The numbers are units in the last place; those of the second list can be seen only where small tensors are kept
  # off the host.
  @small_on_host %{
    "0.7.2" => %{"Nx.Random.normal/4 (21)" => 1},
    "0.13.1" => %{"Nx.Random.normal/4 (19)" => 1}
  }

  @all_on_device %{
    "0.7.2" => %{
      # Nx rounds each step, and ExCubecl.LinAlg once.
      "Nx.LinAlg.cholesky/1 (3)" => 9,
      "Nx.LinAlg.cholesky/1 (4)" => 5,
      "Nx.LinAlg.cholesky/1 (5)" => 2,
      "Nx.LinAlg.cholesky/1 (7)" => 5,
      "Nx.LinAlg.least_squares/2 (30)" => 6,
      "Nx.LinAlg.least_squares/2 (31)" => 32,
      "Nx.LinAlg.lu/2 (36)" => 1,
      "Nx.LinAlg.lu/2 (38)" => 1,
      "Nx.LinAlg.matrix_power/2 (46)" => 1,
      "Nx.LinAlg.pinv/2 (75)" => 8,
      "Nx.Random.multivariate_normal/4 (15)" => 1,
      "Nx.Random.multivariate_normal/4 (17)" => 2,
      "Nx.Random.normal/4 (18)" => 1,
      "Nx.Random.normal/4 (20)" => 1,
      "Nx.asinh/1 (102)" => 1,
      # The polynomials of Nx have an error of several units themselves.
      "Nx.erf_inv/1 (288)" => 1
    },
    # The doctests of functions are of 64-bit floats here.
    "0.13.1" => %{
      "Nx.LinAlg.cholesky/1 (3)" => 9,
      "Nx.LinAlg.cholesky/1 (4)" => 5,
      "Nx.LinAlg.cholesky/1 (5)" => 2,
      "Nx.LinAlg.cholesky/1 (7)" => 5,
      # 0 instead of -2.4e-7.
      "Nx.LinAlg.least_squares/3 (106)" => :around_zero,
      "Nx.LinAlg.least_squares/3 (107)" => 1,
      "Nx.LinAlg.least_squares/3 (108)" => 1,
      "Nx.LinAlg.lu/1 (79)" => 2,
      "Nx.LinAlg.matrix_power/2 (87)" => 1,
      "Nx.Random.multivariate_normal/4 (21)" => 1,
      "Nx.Random.multivariate_normal/4 (23)" => 2,
      "Nx.Random.normal/4 (16)" => 1,
      "Nx.Random.normal/4 (18)" => 2,
      "Nx.Random.normal/4 (19)" => 1,
      "Nx.acosh/1 (467)" => 1,
      "Nx.atanh/1 (471)" => 1,
      # Nx calculates with a polynomial for 32-bit floats: 0.47693629 instead of 0.47693627620446987.
      "Nx.erf_inv/1 (476)" => :more_digits,
      "Nx.erfc/1 (477)" => 1,
      "Nx.expm1/1 (479)" => 1,
      "Nx.rsqrt/1 (481)" => 1,
      "Nx.sigmoid/1 (482)" => 1,
      "Nx.sinh/1 (484)" => 1
    }
  }

  test "the doctests of Nx without a fallback, small tensors on the host" do
    {total, failed, out} =
      NxVm.run(["doctests"], [{"NX_HOST_LIMIT", "64"}, {"NX_FALLBACK", "raise"}])

    known = Map.keys(@small_on_host[version(out)] || %{})
    assert {total >= 1_088, failed -- known} == {true, []}, out
  end

  test "the doctests of Nx without a fallback, every tensor on the device" do
    {total, failed, out} =
      NxVm.run(["doctests"], [{"NX_HOST_LIMIT", "0"}, {"NX_FALLBACK", "raise"}])

    version = version(out)
    known = for list <- [@small_on_host, @all_on_device], do: Map.keys(list[version] || %{})
    assert {total >= 1_088, failed -- Enum.concat(known)} == {true, []}, out
  end

  # A kernel of several operations may calculate small tensors on the device, which the backend would leave on the host.
  test "the doctests of Nx, each operation compiled" do
    {total, failed, out} = NxVm.run(["compiler_doctests"], [{"NX_HOST_LIMIT", "64"}])
    version = version(out)
    known = for list <- [@small_on_host, @all_on_device], do: Map.keys(list[version] || %{})
    assert {total >= 1_088, failed -- Enum.concat(known)} == {true, []}, out
  end

  test "the doctests of Nx, each operation compiled for the device" do
    {total, failed, out} = NxVm.run(["compiler_doctests"], [{"NX_HOST_LIMIT", "0"}])
    version = version(out)
    known = for list <- [@small_on_host, @all_on_device], do: Map.keys(list[version] || %{})
    assert {total >= 1_088, failed -- Enum.concat(known)} == {true, []}, out
  end

  defp version(out), do: ~r/^Nx (.*)$/m |> Regex.run(out) |> Enum.at(1)
end

defmodule ExCubecl.NxTest.Types do
  use ExUnit.Case, async: true

  alias ExCubecl.{NxTypes, NxVm}

  @moduletag :nx
  @moduletag timeout: 600_000

  test "the types of operations by runtime" do
    columns =
      for {_runtime, types} <- NxTypes.runtimes() do
        hidden = {"EX_CUBECL_TEST_HIDDEN_DTYPES", Enum.join(types, ",")}
        {0, [], out} = NxVm.run(["types_table"], [hidden])
        [line] = Regex.run(~r/^{:rows, .*}$/m, out)
        {{:rows, rows}, _} = Code.eval_string(line)
        [_, version] = Regex.run(~r/^Nx (.*)$/m, out)
        {rows, version}
      end

    for {rows, _} <- columns,
        {group, types} <- rows,
        do: assert({group, :f32 in types} == {group, false})

    [{_, version} | _] = columns

    # Up to Nx 0.8, sums of integers and indices have 64 bits.
    if Version.match?(version, ">= 0.9.0") do
      table = NxTypes.table(for {rows, _} <- columns, do: rows)
      if System.get_env("NX_TYPES_WRITE"), do: NxTypes.write(table)
      assert NxTypes.in_guide() == table
    end
  end
end
