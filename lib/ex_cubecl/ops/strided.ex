defmodule ExCubecl.Ops.Strided do
  @moduledoc false
  # Kernels that read and write elements through strides: their index arithmetic, their arguments, and their launch.

  alias ExCubecl.Kernel
  alias ExCubecl.Kernel.Launch
  alias ExCubecl.Ops.{Index, Layout}

  @typedoc "A view, or only where its elements are."
  @type layout :: %{:offset => integer, :strides => [integer], optional(atom) => term}
  @type indexed :: %{statements: list, index: map, args: keyword, key: term}

  @doc """
  The offset of the element of each view, all of which have the shape `shape`, at the index of an invocation: the statements that calculate it, an expression by
  the name of the view, the arguments of the launch, and what the kernel depends on. `linear` is the index of the element in row-major order, and the group of
  axes (`ExCubecl.Ops.Index`) of the shape.
  """
  @spec indexed([{atom, layout}], [non_neg_integer], {term, term}) :: indexed
  def indexed(views, shape, linear \\ {{:index, nil}, :kept}) do
    {index, group} = linear
    {lengths, strides} = Layout.joined(shape, for({_, view} <- views, do: view.strides))
    patterns = Enum.map(strides, &Index.pattern/1)
    {rank, used} = {length(lengths), Index.used(patterns)}
    named = Enum.zip([Keyword.keys(views), patterns, strides])

    %{
      statements: [
        Index.let(:i, Index.unsigned(index)) | Index.coordinates(:i, rank, used, group)
      ],
      index:
        Map.new(named, fn {name, pattern, _} ->
          {name,
           Index.offset(
             Index.unsigned(Index.var(Index.name(name, :offset))),
             name,
             pattern,
             group
           )}
        end),
      args:
        Index.lengths(lengths, used, group) ++
          Enum.flat_map(named, fn {name, _, strides} ->
            [
              {Index.name(name, :offset), Index.wrapped(views[name].offset)}
              | Index.strides(name, strides, group)
            ]
          end),
      key: {rank, for({name, pattern, _} <- named, do: {name, pattern})}
    }
  end

  @doc "The kernel of an operation for some signature, with the values of its arguments."
  def kernel(op, signature, args, outputs, {statements, result}) do
    parsed = %{
      name: op.parsed.name,
      args: Keyword.keys(args),
      outputs: outputs,
      statements: statements,
      result: result,
      group: nil,
      shared: [],
      size: nil
    }

    {%Kernel{parsed: parsed, key: {op.key, signature}}, Keyword.values(args)}
  end

  @doc "An element-wise kernel with another name."
  def named(%{parsed: parsed} = kernel, name),
    do: %{kernel | parsed: %{parsed | name: name}, key: {name, kernel.key}}

  @doc "Prepares and runs a launch, with the options of `ExCubecl.Kernel.Launch.prepare/3`."
  def run(kernel, args, opts),
    do: with({:ok, launch} <- Launch.prepare(kernel, args, opts), do: Launch.run(launch, opts))
end
