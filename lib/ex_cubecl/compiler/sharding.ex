if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Sharding do
    @moduledoc false
    # The arguments of `Nx.Defn.shard_jit/3`: which part of a whole tensor each shard is. Shards are numbered along the last axis of the mesh first.

    alias ExCubecl.{Backend, Device, Error}
    alias ExCubecl.Compiler.Sharding.Propagation
    alias ExCubecl.Error.Arguments
    alias Nx.Defn.Composite
    alias Nx.Tensor, as: T

    @enforce_keys [:mesh, :divisions]
    defstruct [:mesh, :divisions]

    @type t :: %__MODULE__{mesh: tuple, divisions: [Propagation.division()]}

    @doc "The sharding that the option `:input_shardings` describes, for the tensors of all arguments."
    @spec new(map, [Nx.Tensor.t()], term) :: t
    def new(%{shape: mesh}, tensors, shardings) do
      expected = "a list of #{length(tensors)} maps, one for each tensor of the arguments"

      unless is_list(shardings) and length(shardings) == length(tensors) and
               Enum.all?(shardings, &is_map/1),
             do: invalid(:input_shardings, shardings, expected)

      for %T{vectorized_axes: [_ | _] = axes} <- tensors,
          do: invalid(:args, axes, "tensors without vectorized axes")

      divisions =
        for {tensor, sharding} <- Enum.zip(tensors, shardings),
            do: division(tensor, sharding, mesh)

      %__MODULE__{mesh: mesh, divisions: divisions}
    end

    defp division(%T{names: names} = tensor, sharding, mesh) do
      known = Enum.to_list(0..(length(names) - 1)//1)

      axes =
        for {name, axes} <- sharding do
          {axis(name, names, known, sharding), mesh_axes(axes, mesh, sharding)}
        end

      used = Enum.flat_map(axes, &elem(&1, 1))

      if used != Enum.uniq(used) or length(Enum.uniq_by(axes, &elem(&1, 0))) != length(axes),
        do:
          invalid(:input_shardings, sharding, "each axis and each axis of the mesh at most once")

      axes = Map.new(axes)
      for {_, at} <- Enum.with_index(Tuple.to_list(tensor.shape)), do: Map.get(axes, at, [])
    end

    defp axis(name, names, known, sharding) do
      at =
        cond do
          not is_integer(name) -> name && Enum.find_index(names, &(&1 == name))
          name < 0 -> name + length(names)
          true -> name
        end

      unless at in known,
        do:
          invalid(:input_shardings, sharding, "axes of a tensor with the axes #{inspect(names)}")

      at
    end

    defp mesh_axes(axes, mesh, sharding) do
      known = 0..(tuple_size(mesh) - 1)//1

      unless is_list(axes) and Enum.all?(axes, &(&1 in known)),
        do:
          invalid(
            :input_shardings,
            sharding,
            "lists of axes of a mesh of the shape #{inspect(mesh)}"
          )

      axes
    end

    @doc "The device of each shard: those of the option, or `device` for all, or all adapters in turns."
    @spec devices(t, term, term) :: [Device.id()]
    def devices(%{mesh: mesh}, given, device) do
      count = Tuple.product(mesh)

      cond do
        is_list(given) and length(given) == count -> given
        given != nil -> invalid(:devices, given, "a list of #{count} devices, one for each shard")
        device != nil -> List.duplicate(device, count)
        true -> Device.adapters!() |> Stream.cycle() |> Enum.take(count)
      end
    end

    @doc "The arguments in the shapes of whole tensors."
    @spec whole(t, [Nx.Container.t()]) :: [Nx.Container.t()]
    def whole(%{mesh: mesh, divisions: divisions}, arguments) do
      {arguments, []} =
        Enum.map_reduce(arguments, divisions, fn argument, divisions ->
          Composite.traverse(argument, divisions, fn tensor, [division | rest] ->
            lengths =
              for {length, axes} <- Enum.zip(Tuple.to_list(tensor.shape), division),
                  do: length * Propagation.parts(axes, mesh)

            {%{tensor | shape: List.to_tuple(lengths)}, rest}
          end)
        end)

      arguments
    end

    @doc "The tensors of the arguments of each shard."
    @spec inputs(t, [[(() -> Nx.Tensor.t())]], [Nx.Tensor.t()]) :: [[Nx.Tensor.t()]]
    def inputs(%{mesh: mesh}, arguments, templates) do
      unless length(arguments) == Tuple.product(mesh),
        do: invalid(:args, length(arguments), "the arguments of #{Tuple.product(mesh)} shards")

      for functions <- arguments do
        tensors = for fun <- functions, do: fun.()

        unless length(tensors) == length(templates) and
                 Enum.all?(Enum.zip(tensors, templates), fn {a, b} ->
                   {a.type, a.shape} == {b.type, b.shape}
                 end),
               do: invalid(:args, tensors, "tensors of the types and shapes of the first shard")

        tensors
      end
    end

    @doc "Whole arguments, on the device of `config`, from those of each shard."
    @spec gathered(t, [[Nx.Tensor.t()]], map) :: [Nx.Tensor.t()]
    def gathered(%{mesh: mesh, divisions: divisions}, shards, config) do
      shards = Enum.zip(coordinates(Tuple.to_list(mesh)), shards)

      for {division, at} <- Enum.with_index(divisions) do
        used = List.flatten(division)

        parts =
          for {coordinates, tensors} <- shards,
              unused?(coordinates, used),
              into: %{},
              do: {Enum.map(used, &Enum.at(coordinates, &1)), Enum.at(tensors, at)}

        joined(Enum.with_index(division), [], parts, mesh, config)
      end
    end

    # Shards that differ only in mesh axes that do not divide the tensor are equal.
    defp unused?(coordinates, used),
      do:
        coordinates |> Enum.with_index() |> Enum.all?(fn {n, axis} -> n == 0 or axis in used end)

    defp coordinates([]), do: [[]]

    defp coordinates([length | rest]),
      do: for(n <- 0..(length - 1)//1, others <- coordinates(rest), do: [n | others])

    defp joined([], chosen, parts, _mesh, config),
      do: Nx.backend_copy(Map.fetch!(parts, chosen), {Backend, config: config})

    defp joined([{axes, axis} | rest], chosen, parts, mesh, config) do
      joined =
        for own <- coordinates(Enum.map(axes, &elem(mesh, &1))),
            do: joined(rest, chosen ++ own, parts, mesh, config)

      case joined do
        [one] -> one
        several -> Nx.concatenate(several, axis: axis)
      end
    end

    defp invalid(argument, value, expected),
      do: Error.unwrap!(Arguments.invalid(argument, value, expected))
  end
end
