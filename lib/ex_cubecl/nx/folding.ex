if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Folding do
    @moduledoc false
    # `Nx.reduce/4` and `Nx.window_reduce/5` with functions of complex numbers and of floats of eight bits, for which `ExCubecl.Nx.Tracing` has no kernel. The function is called once,
    # with symbols that record the callbacks that it makes; these run for all results together, for one element of each after the other.
    #
    # A node is `{id, :x}`, `{id, :acc}` or `{id, name, out, operands}`, of which operands are nodes and scalars.

    alias ExCubecl.Nx.{ComplexKernels, ElementWise, Float8, Options, Storage}
    alias Nx.Tensor, as: T

    # Each element takes a launch, or several: more of them only for as many results.
    @few 64
    @most 4_096

    # All integers up to these are complex numbers, and floats of eight bits, of any type.
    @exact 16_777_216
    @exact_in_bytes 8

    @recorded ElementWise.names() ++ ComplexKernels.names() ++ [:as_type]
    @same [:reshape, :squeeze, :broadcast]

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:reduce, :window_reduce]

    @doc "Whether a callback is one of these, of complex numbers or of floats of eight bits."
    def run?(name, [out | _], tensors) do
      name in names() and
        Enum.any?([out | tensors], fn %T{type: type} ->
          match?({:c, _}, type) or Float8.type?(type)
        end)
    end

    @doc """
    Whether the operations of a function of a callback have the types that they have with scalars of the types of the callback. `Nx.BinaryBackend` gives functions of windows numbers in
    place of scalars, with which operations have other types, but not those of programs of `Nx.Defn`.
    """
    def typed?(name, fun) do
      {:module, module} = Function.info(fun, :module)
      name == :reduce or module in [Nx.Defn.Evaluator, __MODULE__]
    end

    @doc "A function of a program, which `call` calls with its two arguments."
    def of_program(call), do: fn x, acc -> call.([x, acc]) end

    @doc "The result of a callback. `call` runs a callback of the backend, by its name and arguments."
    def run(name, [out, tensor, initial | _] = args, config, call) do
      bytes? = Enum.any?([out, tensor], &Float8.type?(&1.type))

      if exact?(initial, out.type) and (not bytes? or typed?(name, List.last(args))),
        do: folded(name, args, config, call),
        else: :host
    end

    defp folded(:reduce, [out, tensor, initial, opts, fun], config, call) do
      axes = opts[:axes] || Nx.axes(tensor)
      kept = Nx.axes(tensor) -- axes
      shape = List.to_tuple(for axis <- kept, do: elem(tensor.shape, axis))
      steps = div(Nx.size(tensor), max(Tuple.product(shape), 1))

      results(out, {tensor, initial, shape}, steps, fun, {config, call}, fn tensor ->
        columns =
          tensor
          |> Nx.transpose(axes: kept ++ Enum.sort(axes))
          |> Nx.reshape({Tuple.product(shape), steps})

        for at <- 0..(steps - 1)//1,
            do: columns |> Nx.slice_along_axis(at, 1, axis: 1) |> Nx.reshape(shape)
      end)
    end

    defp folded(:window_reduce, [out, tensor, initial, window, opts, fun], config, call) do
      steps = Tuple.product(window)

      results(out, {tensor, initial, out.shape}, steps, fun, {config, call}, fn tensor ->
        padding = for {low, high} <- opts[:padding], do: {low, high, 0}
        padded = Nx.pad(tensor, unnamed(initial), padding)

        for place <- places(Tuple.to_list(window)) do
          starts = Enum.zip_with(place, opts[:window_dilations], &(&1 * &2))

          lengths = Enum.zip_with(Tuple.to_list(out.shape), opts[:strides], &((&1 - 1) * &2 + 1))

          Nx.slice(padded, starts, lengths, strides: opts[:strides])
        end
      end)
    end

    defp places([]), do: [[]]
    defp places([n | more]), do: for(at <- 0..(n - 1), rest <- places(more), do: [at | rest])

    defp results(out, {tensor, initial, shape}, steps, fun, {config, call}, elements) do
      with true <- steps <= @few or (steps <= @most and Tuple.product(shape) >= @few),
           {:ok, node} <- recorded(fun, tensor.type, out.type, config) do
        start = initial |> unnamed() |> Nx.as_type(out.type) |> Nx.broadcast(shape)
        names = List.duplicate(nil, tuple_size(shape))

        calculate = fn name, out, operands ->
          call.(name, [%{out | shape: shape, names: names} | operands])
        end

        result =
          tensor
          |> unnamed()
          |> elements.()
          |> Enum.reduce(start, &value(node, &1, &2, calculate))

        {:ok, state(Nx.reshape(result, out.shape))}
      else
        _ -> :host
      end
    end

    @doc "Whether a scalar is a number of a type, as which a function gets it."
    def exact?(%T{type: type}, type), do: true

    def exact?(initial, type) do
      most = if Float8.type?(type), do: @exact_in_bytes, else: @exact

      case Storage.known_number(initial) do
        {:ok, number} -> is_integer(number) and abs(number) <= most
        :error -> false
      end
    end

    defp unnamed(%T{shape: shape} = tensor),
      do: %{tensor | names: List.duplicate(nil, tuple_size(shape))}

    defp state(%T{data: %{state: state, config: %Options{}}}), do: state

    ## Recording

    # Any exception: what the function does with its arguments is not known.
    defp recorded(fun, element, accumulator, config) do
      [x, acc] =
        for {name, type} <- [x: element, acc: accumulator],
            do: symbol(Nx.template({}, type), {make_ref(), name}, config)

      with %T{shape: {}, type: ^accumulator} = result <- fun.(x, acc),
           {:ok, node} <- node_of(result) do
        {:ok, node}
      else
        _ -> :host
      end
    rescue
      _error -> :host
    end

    defp symbol(out, node, config),
      do: Storage.put(out, {:symbol, {:folding, node}}, config)

    defp node_of(%T{data: %{state: {:symbol, {:folding, node}}, config: %Options{}}}),
      do: {:ok, node}

    defp node_of(_other), do: :none

    @doc "The symbol that a callback returns for symbols of a fold, `:unknown` if it is no operation of scalars."
    def callback(name, [%T{shape: {}} = out, %T{} = tensor | _], config) when name in @same do
      case node_of(tensor) do
        {:ok, node} -> symbol(out, node, config)
        :none -> :unknown
      end
    end

    def callback(name, [%T{shape: {}} = out | args], config) when name in @recorded do
      if Enum.all?(args, &match?(%T{shape: {}}, &1)) do
        operands =
          for arg <- args do
            with {:ok, node} <- node_of(arg), do: node, else: (_ -> arg)
          end

        symbol(out, {make_ref(), name, out, operands}, config)
      else
        :unknown
      end
    end

    def callback(_name, _args, _config), do: :unknown

    @doc "Whether a tensor is a symbol of a fold."
    def symbol?(tensor), do: node_of(tensor) != :none

    ## Calculation

    defp value(node, x, acc, calculate) do
      {value, _known} = calculated(node, %{x: x, acc: acc}, calculate)
      value
    end

    defp calculated({_id, name}, known, _calculate), do: {known[name], known}
    defp calculated(%T{} = scalar, known, _calculate), do: {scalar, known}

    defp calculated({id, name, out, operands}, known, calculate) do
      case known do
        %{^id => value} ->
          {value, known}

        _ ->
          {operands, known} = Enum.map_reduce(operands, known, &calculated(&1, &2, calculate))
          value = calculate.(name, out, operands)
          {value, Map.put(known, id, value)}
      end
    end
  end
end
