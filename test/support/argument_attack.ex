defmodule ExCubecl.ArgumentAttack do
  @moduledoc false
  # Every public function with one argument, or one option, replaced by a term that it does not expect: huge, deep, of
  # another kind, or a struct of this library with a field changed by hand. A call returns a value or an error, raises
  # ExCubecl.Error if its name has a bang or a question mark, and returns in time; errors have short, printable messages.

  alias ExCubecl.{
    Arena,
    Batch,
    Buffer,
    DocumentedErrors,
    Error,
    Kernel,
    Memory,
    Replicated,
    Sweep,
    View
  }

  # Its effects would spoil the calls that follow.
  @left_out [{ExCubecl.Device, :reset}]
  # Much longer than any of these calls takes on a machine with other work.
  @patience 60_000

  @doc "For each argument and each option of each function, `count` random calls: the calls that went wrong, `[]` if all is well."
  def run(count, seed) do
    :rand.seed(:exsss, seed)
    terms = terms()
    attack(fn -> Enum.take_random(terms, count) end, %{})
  end

  @doc "As `run/2`, with small numbers and buffers in place of random terms. The reason of an error must be documented, too."
  def documented do
    numbers = for {_, number} = term <- numbers(), number in [-1, 0, 7], do: term
    terms = numbers ++ [vector: Buffer.zeros!([3], :s32)] ++ buffers(buffer())
    attack(fn -> terms end, DocumentedErrors.all())
  end

  defp attack(terms, documented) do
    for {module, name, args} <- calls(),
        make <- positions(module, name, args),
        {label, term} <- terms.(),
        args = make.(fresh(label, term)),
        reasons = Map.get(documented, {module, name, length(args)}, :any),
        problem = attempt(module, name, args, reasons),
        problem != :ok,
        do: {module, name, length(args), label, problem}
  end

  # Calls may have written to a lazy buffer.
  defp fresh(:lazy, _written), do: lazy()
  defp fresh(_label, term), do: term

  defp calls do
    calls = Enum.uniq_by(Sweep.calls(Sweep.values()), fn {m, f, args} -> {m, f, length(args)} end)

    Enum.reject(calls, fn {module, name, _} ->
      {module, name} in @left_out or String.ends_with?(to_string(name), "!")
    end)
  end

  # Functions that put a term into one place of a call.
  defp positions(module, name, args) do
    arguments = for i <- 0..(length(args) - 1)//1, do: &List.replace_at(args, i, &1)

    arguments ++
      for key <- options(module, name, args), do: &List.replace_at(args, -1, [{key, &1}])
  end

  # The known options are in the error about an unknown one.
  defp options(_module, _name, []), do: []

  defp options(module, name, args) do
    case apply(module, name, List.replace_at(args, -1, unknown: 1)) do
      {:error, %Error{details: %{argument: :option, expected: "one of :" <> names}}} ->
        for key <- String.split(names, ", :"), do: String.to_existing_atom(key)

      _ ->
        []
    end
  rescue
    # Predicates raise.
    Error -> []
  end

  ## One call, in a process of its own

  defp attempt(module, name, args, reasons) do
    {pid, monitor} = spawn_monitor(fn -> exit({:ended, ended(module, name, args, reasons)}) end)

    receive do
      {:DOWN, ^monitor, _, _, {:ended, how}} -> how
      # A process that is linked to the caller may end it.
      {:DOWN, ^monitor, _, _, reason} -> {:exited, shown(reason)}
    after
      @patience ->
        Process.exit(pid, :kill)
        :no_answer
    end
  after
    if name == :set_limit, do: Memory.set_limit(nil)
  end

  defp ended(module, name, args, reasons) do
    apply(module, name, args)
  rescue
    error in Error ->
      if String.ends_with?(to_string(name), "?"),
        do: worded(error, name, reasons),
        else: {:raised, Exception.message(error)}

    error ->
      {:raised, shown(error)}
  catch
    kind, reason -> {kind, shown(reason)}
  else
    {:error, %Error{} = error} -> worded(error, name, reasons)
    {:error, other} -> {:error, shown(other)}
    value -> if String.printable?(inspect(value)), do: :ok, else: :unprintable_value
  end

  defp worded(error, name, reasons) do
    message = Exception.message(error)

    cond do
      not String.printable?(message) or byte_size(message) not in 10..3_000 ->
        {:message, shown(message)}

      byte_size(inspect(error)) >= 50_000 ->
        {:inspected, shown(message)}

      not named?(message, name) ->
        {:unnamed, shown(message)}

      reasons != :any and error.reason not in reasons ->
        {:undocumented, error.reason, shown(message)}

      true ->
        :ok
    end
  end

  @doc "Whether a message begins with the name of the function that was called, or says which kernel it is about."
  def named?(message, name),
    do:
      String.starts_with?(message, "#{name}: ") or
        message =~ ~r/^(the )?kernel |^(argument|option) \w+ (\(\w+\) )?of kernel /

  defp shown(term), do: term |> inspect(limit: 10, printable_limit: 200) |> String.slice(0, 300)

  ## Terms

  defp terms do
    buffer = buffer()

    numbers() ++
      texts() ++ lists() ++ others() ++ buffers(buffer) ++ changed(buffer) ++ structs(buffer)
  end

  # Integers are either small or larger than the memory of any device.
  defp numbers do
    [
      minus: -1,
      zero: 0,
      seven: 7,
      power45: Integer.pow(2, 45),
      word: Integer.pow(2, 64) - 1,
      power70: Integer.pow(2, 70)
    ] ++
      [
        minus70: -Integer.pow(2, 70),
        digits: Integer.pow(2, 20_000),
        fraction: 1.5,
        minus_zero: -0.0,
        float: 1.0e308
      ]
  end

  defp texts do
    [
      empty: "",
      text: "x",
      invalid: <<255, 254>>,
      zero_byte: "a\0b",
      long: String.duplicate("ab", 50_000),
      bits: <<1::3>>
    ] ++
      [
        bytes: <<0::96>>,
        nothing: nil,
        yes: true,
        nan: :nan,
        atom: :foo,
        no_name: :"",
        line: :"é\n",
        module: No.Such.Module
      ]
  end

  defp lists do
    nested = Enum.reduce(1..20_000, [1], fn _, inner -> [inner] end)

    [
      none: [],
      improper: [1 | 2],
      inner: [[1 | 2]],
      options: [{:device, nil} | :x],
      twice: [device: nil, device: {:cuda, 99}]
    ] ++
      [
        strings: [{"a", 1}],
        numbers: [1, 2],
        negative: [-1],
        atoms: [:a, :b],
        ragged: [[1], [2, 3]],
        nested: nested
      ] ++
      [
        many: List.duplicate(1, 100_000),
        axes: List.duplicate(1, 65),
        long: Enum.to_list(1..100_000)
      ]
  end

  defp others do
    [
      tuple: {},
      pair: {1, 2},
      negative: {-1, -1},
      large: Tuple.duplicate(0, 100_000),
      device: {:vulkan, Integer.pow(2, 70)}
    ] ++
      [
        elsewhere: {:no@where, {:vulkan, 0}},
        here: {node(), {:vulkan, 0}},
        map: %{},
        keys: %{device: nil},
        pid: self()
      ] ++
      [
        dead: spawn(fn -> :ok end),
        reference: make_ref(),
        port: hd(:erlang.ports()),
        function: &is_atom/1,
        range: 1..3
      ] ++
      [
        down: 3..1//-1,
        endless: 0..Integer.pow(2, 80),
        set: MapSet.new([1]),
        date: ~D[2020-01-01],
        exception: %ArgumentError{}
      ]
  end

  defp buffer, do: ExCubecl.buffer!([1.0, 2.0, 3.0, 4.0], [2, 2], :f32)
  defp lazy, do: Buffer.empty!([2, 2], :f32)

  defp buffers(buffer) do
    [
      buffer: buffer,
      list: [buffer],
      improper: [buffer | buffer],
      lazy: lazy(),
      none: Buffer.zeros!([0, 2], :f32),
      scalar: Buffer.zeros!([], :u64)
    ]
  end

  defp changed(buffer) do
    changed =
      for change <- [
            [ref: make_ref()],
            [ref: nil],
            [ref: <<1, 2, 3>>],
            [device: nil],
            [device: {:cuda, 99}],
            [device: {:vulkan, 4242}],
            [device: {:no@where, {:vulkan, 0}}],
            [shape: nil],
            [shape: {2, 2}],
            [shape: [[2], [2]]],
            [shape: [2 | 2]],
            [shape: [-2, -2]],
            [shape: [0]],
            [shape: [100]],
            [shape: [Integer.pow(2, 70)]],
            [dtype: :u8],
            [dtype: :f64],
            [dtype: [1]],
            [dtype: nil]
          ],
          do: {{:buffer, change}, struct!(buffer, change)}

    [{:partial, Map.delete(buffer, :shape)} | changed]
  end

  defp structs(buffer) do
    view = View.of!(buffer)
    replicated = Replicated.from!([1.0, 2.0], [2], :f32, devices: [buffer.device])

    views =
      for {key, _} <- Map.from_struct(view),
          value <- [
            nil,
            -1,
            Integer.pow(2, 70),
            [1],
            [1 | 2],
            [-5, 7],
            [Integer.pow(2, 62), Integer.pow(2, 62)],
            :x
          ],
          do: {{:view, key, value}, Map.put(view, key, value)}

    copies =
      for buffers <- [[], nil, [buffer | 2], [1]],
          do: {{:replicated, buffers}, %{replicated | buffers: buffers}}

    [
      view: view,
      replicated: replicated,
      batch: %{Batch.new() | steps: :x},
      kernel: %Kernel{key: nil, parsed: nil}
    ] ++
      [arena: %Arena{ref: nil, unit: nil, device: nil, size: nil}] ++ views ++ copies
  end
end
