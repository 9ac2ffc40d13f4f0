if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Tracing do
    @moduledoc false
    # Kernels of functions that callers pass to `Nx.map/3`, `Nx.reduce/4` and `Nx.window_reduce/5`. The function is called once, with symbols: scalars of
    # ExCubecl.Backend whose state is `{:symbol, node}`. Each callback that it makes adds a node; one that is no element-wise operation of scalars, and one
    # that reads a value, raises, and the function then runs on the host.
    #
    # A node is `{id, dtype, operation, operands}`; operands are nodes and numbers with their types.

    alias ExCubecl.{Error, Kernel}
    alias ExCubecl.Kernel.Types, as: KernelTypes
    alias ExCubecl.Nx.{Float8, Folding, Operand, Options, Storage, Types}
    alias ExCubecl.Ops.Functions
    alias Nx.Tensor, as: T

    @floats [:f16, :f32, :f64]
    @integers [:u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64]
    @signed [:s8, :s16, :s32, :s64]
    @max_nodes 1_000

    @arithmetic %{add: :add, subtract: :sub, multiply: :mul, max: :max, min: :min}
    @comparisons %{equal: :eq, not_equal: :ne, less: :lt, less_equal: :le}
                 |> Map.merge(%{greater: :gt, greater_equal: :ge})
    @bits %{bitwise_and: :band, bitwise_or: :bor, bitwise_xor: :bxor}
    @logical %{logical_and: :and, logical_or: :or, logical_xor: :ne}
    @rounding [:floor, :ceil]
    @same [:reshape, :squeeze, :broadcast]

    @doc "Whether a tensor is a symbol."
    def symbol?(%T{data: %{state: {:symbol, _}, config: %Options{}}}), do: true
    def symbol?(_tensor), do: false

    @doc """
    The element-wise kernel of a function of an element and an accumulator of the types, whose result is of the type of the accumulator; `:host` if the
    function is no expression of scalars.
    """
    @spec kernel(fun, Nx.Type.t(), Nx.Type.t(), map) :: {:ok, Kernel.t()} | :host
    def kernel(fun, element, accumulator, config),
      do: traced(fun, [x: element, acc: accumulator], accumulator, &(&1 == accumulator), config)

    @doc "As `kernel/4`, for a function of an element, with a result of a type that is cast to the type `out`."
    @spec map_kernel(fun, Nx.Type.t(), Nx.Type.t(), map) :: {:ok, Kernel.t()} | :host
    def map_kernel(fun, element, out, config),
      do: traced(fun, [x: element], out, &(&1 == out or castable?(&1, out)), config)

    defp castable?(type, out),
      do: Types.dtype(out) in @floats and Types.dtype(type) in (@floats ++ @integers)

    defp traced(fun, parameters, out, suits?, config) do
      result = apply(fun, for({name, type} <- parameters, do: argument(name, type, config)))

      with %T{shape: {}, type: type} <- result,
           true <- suits?.(type),
           {:ok, operand} <- operand(result),
           {:ok, parsed} <- parsed(stored(operand, out), Keyword.keys(parameters), stored_as(out)) do
        {:ok, %Kernel{parsed: parsed, key: :erlang.md5(:erlang.term_to_binary(parsed))}}
      else
        _ -> :host
      end
    rescue
      # Any exception: what the function does with its arguments is not known.
      _error -> :host
    end

    defp argument(name, type, config),
      do: symbol(Nx.template({}, type), number({name, stored_as(type), name, []}, type), config)

    defp symbol(out, node, config), do: Storage.put(out, {:symbol, node}, config)

    @doc "The symbol that a callback of Nx.Backend returns for symbols; raises if there is none."
    def callback(name, [_ | args] = all, config) do
      if Enum.any?(args, &Folding.symbol?/1) do
        with :unknown <- Folding.callback(name, all, config), do: unknown(name, config)
      else
        of_kernel(name, all, config)
      end
    end

    defp of_kernel(name, [%T{shape: {}, type: type} = out | args], config) do
      with dtype when dtype in @floats or dtype in @integers <- calculation(type, args, config),
           {:ok, node} <- node(name, dtype, args, config) do
        symbol(out, if(name in @same, do: node, else: number(byte(node, type), type)), config)
      else
        _ -> unknown(name, config)
      end
    end

    defp of_kernel(name, _args, config), do: unknown(name, config)

    defp unknown(name, config),
      do: Error.unwrap!(Error.new(:unsupported, operation: name, device: config.device))

    # Floats of eight bits are bytes in memory. Operands are their numbers, 32-bit floats, and each result becomes a byte.
    defp dtype_of(type), do: if(Float8.type?(type), do: :f32, else: Types.dtype(type))
    defp stored_as(type), do: if(Float8.type?(type), do: :u32, else: Types.dtype(type))

    defp calculation(type, args, config) do
      if Float8.type?(type),
        do: Float8.calculation(args, config.device),
        else: Types.dtype(type)
    end

    defp byte(node, type), do: converted(node, :u32, {:byte, type}, type)
    defp number(node, type), do: converted(node, :f32, {:number, type}, type)

    defp converted(node, dtype, how, type) do
      if Float8.type?(type),
        do: {System.unique_integer([:positive]), dtype, how, [node]},
        else: node
    end

    defp stored({_, _, {:number, type}, [byte]}, type), do: byte
    defp stored(operand, type), do: byte(operand, type)

    ## Nodes

    defp node(name, _dtype, [x | _], _config) when name in @same, do: found(x)

    defp node(name, dtype, args, config) do
      args = if name == :select or length(args) <= 2, do: args, else: [:unknown]

      with {:ok, operands} <- operands(args),
           true <- suits?(name, dtype, operands) or in_doubles?(name, dtype, operands, config),
           do: {:ok, {System.unique_integer([:positive]), dtype, name, operands}}
    end

    defp found(x) do
      with {:ok, {_, _, _, _} = node} <- operand(x), do: {:ok, node}
    end

    defp operands(args) do
      Enum.reduce_while(Enum.reverse(args), {:ok, []}, fn arg, {:ok, done} ->
        case operand(arg) do
          {:ok, operand} -> {:cont, {:ok, [operand | done]}}
          _ -> {:halt, :unknown}
        end
      end)
    end

    defp operand(%T{data: %{state: {:symbol, node}, config: %Options{}}}), do: {:ok, node}

    defp operand(%T{shape: {}, type: type} = tensor) do
      case Storage.known_number(tensor) do
        {:ok, number} when is_number(number) -> {:ok, {:number, dtype_of(type), number}}
        _ -> :unknown
      end
    end

    defp operand(_other), do: :unknown

    # Whether the operation has the result of Nx for the operands, which are cast to a type that has all of their values.
    defp suits?(name, dtype, operands) when is_map_key(@arithmetic, name),
      do: Enum.all?(operands, &exact?(&1, dtype))

    defp suits?(:divide, dtype, operands),
      do: dtype in @floats and Enum.all?(operands, &exact?(&1, dtype))

    defp suits?(name, dtype, operands) when is_map_key(@bits, name),
      do: dtype in @integers and Enum.all?(operands, &(dtype(&1) in @integers))

    defp suits?(name, _dtype, [_, _] = operands) when is_map_key(@comparisons, name),
      do: Enum.all?(operands, &exact?(&1, common(operands)))

    defp suits?(name, _dtype, [_, _]) when is_map_key(@logical, name), do: true
    defp suits?(:select, dtype, [_, a, b]), do: exact?(a, dtype) and exact?(b, dtype)
    defp suits?(:as_type, dtype, [x]), do: dtype(x) in @integers or dtype in @floats

    defp suits?(name, dtype, [x]) when name in [:abs, :negate],
      do: dtype(x) == dtype and dtype in (@floats ++ @signed)

    defp suits?(name, dtype, [x]) when name in @rounding,
      do: dtype(x) == dtype and dtype in @floats

    # The device has functions that are close to those of Nx.
    defp suits?(name, dtype, [x]) when dtype in [:f32, :f64],
      do: dtype(x) == dtype and Keyword.has_key?(Functions.all(), name)

    defp suits?(_name, _dtype, _operands), do: false

    # Nx calculates floats together with integers that the type does not have as 64-bit floats.
    defp in_doubles?(name, dtype, [_, _], config)
         when dtype in @floats and (is_map_key(@arithmetic, name) or name == :divide),
         do: Operand.computes?(config.device, :f64)

    defp in_doubles?(_name, _dtype, _operands, _config), do: false

    defp calculated(dtype, operands),
      do: if(Enum.all?(operands, &exact?(&1, dtype)), do: dtype, else: :f64)

    defp exact?({:number, _, n}, to) when is_integer(n) and to in @floats,
      do: Operand.integer_fits?(n, to)

    defp exact?({:number, _, n}, to) when is_integer(n), do: Operand.cast(n, to) == n

    defp exact?(operand, to),
      do: (dtype(operand) in @floats and to in @floats) or Types.exact?(dtype(operand), to)

    defp dtype(operand), do: elem(operand, 1)
    defp common([a, b]), do: KernelTypes.mix(dtype(a), dtype(b))

    ## Code

    # Each node is a variable, which is set once however often the node is used.
    defp parsed(operand, args, dtype) do
      {variable, {statements, _known}} = lower(operand, {[], Map.new(args, &{&1, &1})})

      if length(statements) > @max_nodes do
        :host
      else
        {:ok,
         %{
           name: if(args == [:x], do: :map, else: :reduce),
           args: args,
           outputs: [],
           statements: Enum.reverse(statements),
           result: {:cast, dtype, variable},
           group: nil,
           shared: [],
           size: nil
         }}
      end
    end

    defp lower({:number, dtype, number}, state), do: {{:cast, dtype, {:number, number}}, state}

    defp lower({id, dtype, name, operands}, {statements, known}) do
      dtype = held(name, dtype)

      case known do
        %{^id => variable} ->
          {{:cast, dtype, {:var, variable}}, {statements, known}}

        _ ->
          {values, {statements, known}} = Enum.map_reduce(operands, {statements, known}, &lower/2)
          variable = :"v#{map_size(known)}"
          set = {:let, 0, variable, {:cast, dtype, code(name, dtype, operands, values)}}
          {{:var, variable}, {[set | statements], Map.put(known, id, variable)}}
      end
    end

    # Comparisons and logical operations have the type u8 in Nx. Kernels hold their results as u32, because a device may have no 8-bit integers.
    defp held(name, _dtype) when is_map_key(@comparisons, name) or is_map_key(@logical, name),
      do: :u32

    defp held(_name, dtype), do: dtype

    defp code(name, dtype, operands, values) when is_map_key(@arithmetic, name),
      do: call(@arithmetic[name], calculated(dtype, operands), values)

    defp code(name, dtype, _operands, values) when is_map_key(@bits, name),
      do: call(@bits[name], dtype, values)

    defp code(name, _dtype, operands, values) when is_map_key(@comparisons, name),
      do: call(@comparisons[name], common(operands), values)

    defp code(name, _dtype, _operands, values) when is_map_key(@logical, name) do
      truths = for value <- values, do: {:call, 0, :ne, [value, {:number, 0}]}
      {:call, 0, @logical[name], truths}
    end

    defp code(:divide, dtype, operands, values),
      do: call(:divide, calculated(dtype, operands), values)

    defp code(:as_type, _dtype, _operands, [value]), do: value

    defp code({:number, type}, _dtype, _operands, [byte]), do: Float8.number(byte, type)

    defp code({:byte, type}, _dtype, [operand], [value]),
      do: Float8.byte(value, dtype(operand), type)

    defp code(:select, dtype, _operands, [predicate, a, b]) do
      condition = {:call, 0, :ne, [predicate, {:number, 0}]}
      {:if, 0, condition, {:cast, dtype, a}, {:cast, dtype, b}}
    end

    defp code(:negate, _dtype, _operands, values), do: {:call, 0, :neg, values}

    defp code(name, _dtype, _operands, values) when name in [:abs | @rounding],
      do: {:call, 0, name, values}

    defp code(name, _dtype, _operands, values),
      do: {:inline, Functions.all()[name].parsed, values}

    defp call(function, type, values),
      do: {:call, 0, function, for(value <- values, do: {:cast, type, value})}
  end
end
