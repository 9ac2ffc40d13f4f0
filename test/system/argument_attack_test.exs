defmodule ExCubecl.ArgumentAttackTest do
  # In a VM of its own, because calls change limits and open devices.
  use ExCubecl.Case, async: true

  test "no argument and no option makes a public function raise, hang or answer with an unreadable error" do
    seed = :rand.uniform(1_000_000_000)

    script = """
    for problem <- ExCubecl.ArgumentAttack.run(3, #{seed}), do: IO.puts(inspect(problem))
    """

    assert {seed, {"", "", 0}} == {seed, in_own_vm(script, [])}
  end

  test "small numbers and buffers in place of each argument and option give no error whose reason is not documented" do
    script = "for problem <- ExCubecl.ArgumentAttack.documented(), do: IO.puts(inspect(problem))"
    assert {"", "", 0} == in_own_vm(script, [])
  end
end
