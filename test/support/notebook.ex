defmodule ExCubecl.Notebook do
  @moduledoc false
  # Runs a Livebook file as Livebook does: cell after cell, each with the bindings of the cells before it.

  import ExUnit.Assertions
  import ExUnit.CaptureIO

  @cell ~r/^```elixir\n(.*?)^```\n/ms
  @outputs ~r/\A(?:\s*<!-- livebook:\{"output":true\} -->\s*^```\n.*?^```\n)+/ms
  @output ~r/^```\n(.*?)^```\n/ms

  @doc "Runs each cell but the setup. Outputs in the file must equal the outputs of the run."
  def run(path) do
    env = Code.env_for_eval(file: path)
    [{setup, _} | cells] = path |> File.read!() |> cells()
    assert setup =~ "Mix.install"

    Enum.reduce(cells, {[], env}, fn {code, shown}, {binding, env} ->
      {value, printed, binding, env} = evaluate(code, binding, env)
      if shown != [], do: assert({code, outputs(printed, value)} == {code, shown})
      {binding, env}
    end)

    length(cells)
  end

  defp cells(text) do
    starts = Regex.scan(@cell, text, return: :index)

    for [{start, length}, {code_start, code_length}] <- starts do
      rest = binary_part(text, start + length, byte_size(text) - start - length)
      {binary_part(text, code_start, code_length), shown(Regex.run(@outputs, rest))}
    end
  end

  defp shown(nil), do: []

  defp shown([outputs]),
    do: for([_, text] <- Regex.scan(@output, outputs), do: String.trim_trailing(text))

  defp evaluate(code, binding, env) do
    quoted = Code.string_to_quoted!(code)
    parent = self()

    printed = capture_io(fn -> send(parent, Code.eval_quoted_with_env(quoted, binding, env)) end)

    assert_received {value, binding, env}
    {value, String.trim_trailing(printed), binding, env}
  end

  # In the format that Livebook prints.
  defp outputs("", value), do: [inspect(value, pretty: true, width: 100)]
  defp outputs(printed, value), do: [printed | outputs("", value)]
end
