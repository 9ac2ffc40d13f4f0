defmodule ExCubecl.Sweep do
  @moduledoc false
  # Calls every public function of every public module, with arguments that are valid as far as this VM allows, chosen
  # by the names of its parameters. Whatever fault the VM has, a call returns, or raises ExCubecl.Error.

  alias ExCubecl.{Arena, Batch, Buffer, Device, Error, Kernel, Memory, Replicated}

  require Kernel

  @doc "The public modules that are compiled in this VM."
  def modules do
    Application.load(:ex_cubecl)
    {:ok, all} = :application.get_key(:ex_cubecl, :modules)
    for module <- all, not (Atom.to_string(module) =~ "Mix.Tasks"), public?(module), do: module
  end

  defp public?(module), do: match?({:docs_v1, _, _, _, %{}, _, _}, Code.fetch_docs(module))

  @doc "The calls that ended in another way than with a value or an ExCubecl.Error; `[]` if all is well."
  def run do
    values = values()
    for {module, name, args} <- calls(values), problem <- ended(module, name, args), do: problem
  end

  @doc "The calls, as `{module, name, args}`. Raises for a function with unknown parameters."
  def calls(values) do
    for module <- modules(),
        {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module),
        {{:function, name, _arity}, _, [signature | _], doc, _} <- docs,
        doc != :hidden,
        args <- arguments(module, name, signature, values, docs),
        do: {module, name, args}
  end

  # A function with a bang has the arguments of the function without it.
  defp arguments(module, name, signature, values, docs) do
    text = Atom.to_string(name)

    if String.ends_with?(text, "!") do
      sister = text |> String.trim_trailing("!") |> String.to_existing_atom()
      arity = signature |> parameters() |> length()

      for {{:function, ^sister, ^arity}, _, [signature | _], _, _} <- docs,
          args <- arguments(module, sister, signature, values, []),
          do: args
    else
      signature |> parameters() |> all_arities() |> Enum.map(&filled(&1, module, name, values))
    end
  end

  defp parameters(signature) do
    case Code.string_to_quoted!(signature) do
      {_name, _, args} when is_list(args) -> args
      _ -> []
    end
  end

  # With all default values, with the first default argument given, and so on.
  defp all_arities(parameters) do
    defaults = Enum.count(parameters, &match?({:\\, _, _}, &1))
    for given <- 0..defaults, do: given(parameters, given)
  end

  defp given([], _left), do: []
  defp given([{:\\, _, _} | rest], 0), do: given(rest, 0)
  defp given([{:\\, _, [name, _]} | rest], left), do: [name | given(rest, left - 1)]
  defp given([name | rest], left), do: [name | given(rest, left)]

  defp filled(names, module, function, values) do
    for {name, _, _} <- names do
      case values do
        %{{^module, ^function, ^name} => value} -> value
        %{{^module, ^name} => value} -> value
        %{^name => value} -> value
        _ -> raise "#{inspect(module)}.#{function}: the sweep has no value for #{name}"
      end
    end
  end

  defp ended(module, name, args) do
    apply(module, name, args)
  catch
    :error, %Error{} = error -> worded(module, name, args, error)
    kind, reason -> [{module, name, length(args), {kind, reason}}]
  else
    {:error, %Error{} = error} -> worded(module, name, args, error)
    {:error, other} -> [{module, name, length(args), other}]
    _ -> []
  end

  defp worded(module, name, args, error) do
    if String.printable?(Exception.message(error)),
      do: [],
      else: [{module, name, length(args), error}]
  end

  @doc "The arguments by the names of parameters."
  def values do
    device = device()
    buffer = made(device, [2, 2])
    pool = pool(device)

    %{
      :adapter => device,
      :arena => made_or_forged(Arena.new(1000, device: device), Arena, device),
      :address => 4_096,
      :args => [buffer],
      :axes => nil,
      :axis => 0,
      :batch => Batch.fill(Batch.new(), buffer, 1),
      :buffer => buffer,
      :buffers => [buffer, buffer],
      :bytes => 1000,
      :chart => %Memory.Chart{title: "none", html: [], svg: []},
      :config => [{1, 0, 0}, {0, -1, 1}],
      :term => :f32,
      :count => 1,
      :data => [1.0, 2.0, 3.0, 4.0],
      :device => nil,
      :devices => [device],
      :dtype => :f32,
      :extendable => true,
      :fun => fn -> :done end,
      :given => [2, 2],
      :operation => :sum,
      {ExCubecl.Data, :data} => buffer,
      {ExCubecl.Data, :path} =>
        Path.join(System.tmp_dir!(), "ex_cubecl_sweep_#{System.pid()}.npy"),
      :high => 1,
      {Arena, :fun} => fn _ -> :done end,
      {ExCubecl.Pool, :fun} => fn _ -> :done end,
      :index => 0,
      :indices => integers(device),
      :integer => 1,
      {ExCubecl.Random, :key} => {1, 2},
      :initial => 0,
      :input => buffer,
      :inputs => [buffer],
      :k => 1,
      :kernel => Kernel.kernel(fn x -> x + 1 end),
      {ExCubecl.Ops, :kernel} => Kernel.kernel(fn x, acc -> x + acc end),
      :len => 4,
      :length => 2,
      :lengths => [1, 2],
      :low => 0,
      :name => "relu",
      :names => [x: buffer],
      :offset => 0,
      :on => false,
      :opts => [],
      {Device, :open, :opts} => [as: {:vulkan, 7_700}],
      {ExCubecl.Pool, :opts} => [size: 16],
      {ExCubecl.Pool, :checkout, :opts} => [timeout: 0],
      {ExCubecl.Pool, :with_buffer, :opts} => [timeout: 0],
      {Kernel, :source, :opts} => [wgsl: "@compute @workgroup_size(1) fn main() {}"],
      {Arena, :scoped, :opts} => 1000,
      :output => made(device, [2, 2]),
      :parts => 2,
      :repetitions => [2, 1],
      :starts => [0, 0],
      :params => %{},
      :path => Path.join(System.tmp_dir!(), "ex_cubecl_sweep_#{System.pid()}.svg"),
      :pool => pool,
      :pred => buffer,
      :range => 0..1,
      :recording => false,
      :rep => replicated(device),
      :seed => 1,
      :shape => [2, 2],
      :size_or_opts => 1000,
      :source => buffer,
      :target => made(device, [2, 2]),
      :tensor => buffer,
      {ExCubecl.Nx, :tensor} => :none,
      :tensors => [buffer],
      :timeout => 0,
      :transfer => make_ref(),
      :updates => buffer,
      :value => 1,
      :a => buffer,
      :b => buffer,
      :window => [1, 1],
      :x => buffer
    }
  end

  # A device of the list, even if the default device is not valid.
  defp device do
    case Device.list() do
      {:ok, [%{id: id} | _]} -> id
      {:error, _} -> {:vulkan, 0}
    end
  end

  defp made(device, shape) do
    case Buffer.full(shape, :f32, 1.0, device: device) do
      {:ok, buffer} -> buffer
      {:error, _} -> %Buffer{ref: make_ref(), dtype: :f32, shape: shape, device: device}
    end
  end

  defp integers(device) do
    with %Buffer{} = floats <- made(device, [2, 1]),
         {:ok, indices} <- Buffer.convert(floats, :s32),
         do: indices,
         else: (_ -> made(device, [2]))
  end

  defp made_or_forged({:ok, arena}, _module, _device), do: arena

  defp made_or_forged({:error, _}, _module, device),
    do: %Arena{ref: make_ref(), unit: :bytes, device: device, size: 1000}

  defp pool(device) do
    case ExCubecl.Pool.start_link(size: 16, device: device) do
      {:ok, pool} -> pool
      {:error, _} -> self()
    end
  end

  defp replicated(device) do
    case Replicated.from([1.0, 1.0, 1.0, 1.0], [2, 2], :f32, devices: [device]) do
      {:ok, rep} -> rep
      {:error, _} -> :none
    end
  end
end
