defmodule ExCubecl.Batch do
  @moduledoc """
  Kernels, copies and fills that are recorded once and submitted together.

  A batch is submitted to the device in one call. All of it is checked before any step runs, and other calls see either all or none of its writes.
  A step without names is prepared once, when it is recorded. Without contention, a hundred small steps take the caller a quarter of the time of a
  hundred calls. The time on the device is the same.

      iex> require ExCubecl.Kernel
      iex> alias ExCubecl.Batch
      iex> double = ExCubecl.Kernel.kernel(fn x, out -> out[index()] = 2 * x[index()] end)
      iex> batch =
      ...>   Batch.new()
      ...>   |> Batch.run(double, [:x, :y])
      ...>   |> Batch.run(double, [:y, :z])
      ...>   |> Batch.fill(:y, 0)
      iex> x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
      iex> {y, z} = {ExCubecl.Buffer.empty!([3], :s32), ExCubecl.Buffer.empty!([3], :s32)}
      iex> Batch.submit(batch, x: x, y: y, z: z)
      :ok
      iex> {ExCubecl.to_list!(y), ExCubecl.to_list!(z)}
      {[0, 0, 0], [4, 8, 12]}

  Arguments are buffers, numbers, or names (atoms). `submit/2` binds names to buffers or numbers, so that a batch can be submitted again with others.
  `:nan`, `:infinity` and `:neg_infinity` are numbers, not names. Steps run in the order in which they were recorded. Recording a step never fails:
  `submit/2` returns the error of a step that cannot run.
  """

  use ExCubecl.Error.Bang

  require ExCubecl.Kernel

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{CallArguments, Definition, Launch, Lookup}

  defstruct steps: []

  @type t :: %__MODULE__{}
  @type argument :: Buffer.t() | number | atom

  @copy Definition.named(Kernel.kernel(fn source -> source end), :copy)
  @fill Definition.named(
          Kernel.kernel(fn value, target -> target[index()] = value end),
          :fill
        )

  @doc """
  Returns a batch without steps.

      iex> ExCubecl.Batch.submit(ExCubecl.Batch.new())
      :ok
  """
  @spec new() :: t
  def new, do: %__MODULE__{}

  @doc """
  Returns the batch with a run of a kernel appended. Options are those of `ExCubecl.Kernel.run/3`; an element-wise kernel
  needs `into:`, a buffer or a name.

      iex> require ExCubecl.Kernel
      iex> double = ExCubecl.Kernel.kernel(fn x -> 2 * x end)
      iex> twice = ExCubecl.Batch.run(ExCubecl.Batch.new(), double, [:x], into: :y)
      iex> y = ExCubecl.Buffer.empty!([2], :f32)
      iex> ExCubecl.Batch.submit(twice, x: ExCubecl.buffer!([1.0, 2.0]), y: y)
      :ok
      iex> ExCubecl.to_list!(y)
      [2.0, 4.0]
  """
  @spec run(t, Kernel.t() | {module, atom}, [argument], keyword) :: t
  def run(batch, kernel, args, opts \\ [])

  def run(%__MODULE__{steps: steps} = batch, kernel, args, opts),
    do: %{batch | steps: [recorded({kernel, args, opts}) | steps]}

  def run(other, _kernel, _args, _opts), do: %__MODULE__{steps: [{:ready, invalid(other)}]}

  @doc """
  Returns the batch with a copy of all elements appended; types and shapes must be equal.

      iex> y = ExCubecl.Buffer.empty!([2], :f32)
      iex> batch = ExCubecl.Batch.copy(ExCubecl.Batch.new(), :x, y)
      iex> ExCubecl.Batch.submit(batch, x: ExCubecl.buffer!([1.0, 2.0]))
      :ok
      iex> ExCubecl.to_list!(y)
      [1.0, 2.0]
  """
  @spec copy(t, argument, argument) :: t
  def copy(batch, source, target), do: run(batch, @copy, [source], into: target)

  @doc """
  Returns the batch with a fill appended: each element becomes `value`.

      iex> y = ExCubecl.Buffer.empty!([2], :f32)
      iex> ExCubecl.Batch.submit(ExCubecl.Batch.fill(ExCubecl.Batch.new(), y, 7))
      :ok
      iex> ExCubecl.to_list!(y)
      [7.0, 7.0]
  """
  @spec fill(t, argument, argument) :: t
  def fill(batch, target, value), do: run(batch, @fill, [value, target])

  @doc """
  Returns `:ok` and runs all steps. `names` is a keyword list that binds each name to a buffer or a number.

  A submission allocates the memory of outputs that have none yet, before the first step runs. If it does not fit, garbage is collected
  as for `ExCubecl.Buffer.new/4`, and the submission is tried again.

  Errors: those of `ExCubecl.Kernel.run/3`, of the first step that fails its check; no step has run then.
  `:invalid_argument` for a name that is not bound. `:limit_exceeded` or `:out_of_memory` if the memory of the outputs does not fit.

      iex> {:error, error} = ExCubecl.Batch.submit(ExCubecl.Batch.new() |> ExCubecl.Batch.fill(:x, 1))
      iex> error.reason
      :invalid_argument
  """
  @spec submit(t, keyword) :: :ok | {:error, Error.t()}
  def submit(batch, names \\ [])

  def submit(%__MODULE__{steps: steps}, names) when length(steps) >= 0 do
    if Keyword.keyword?(names) do
      with {:ok, steps} <- prepared(Enum.reverse(steps), Map.new(names), []),
           {:error, error} <- Launch.run_all(steps),
           do: name_step(error, steps)
    else
      Arguments.invalid(:names, names, "a keyword list")
    end
  end

  def submit(other, _names), do: invalid(other)

  defp invalid(other), do: Arguments.invalid(:batch, other, "an %ExCubecl.Batch{}")

  # A step without names is prepared only once. An error in it is returned by `submit/2`.
  defp recorded({_, args, opts} = step) do
    if named?(args) or (Keyword.keyword?(opts) and opts[:into] != nil and is_atom(opts[:into])),
      do: step,
      else: {:ready, step(step, %{})}
  end

  defp named?(args),
    do: is_list(args) and not List.improper?(args) and Enum.any?(args, &name?/1)

  defp name?(term), do: is_atom(term) and not CallArguments.number?(term)

  defp prepared([], _names, done), do: {:ok, Enum.reverse(done)}

  defp prepared([recorded | rest], names, done) do
    with {:error, error} <- step(recorded, names) do
      at(error, length(done) + 1)
    else
      {:ok, step} -> prepared(rest, names, [step | done])
    end
  end

  # Names the first step that the error belongs to; an error of the device belongs to no step.
  defp name_step(error, steps) do
    steps
    |> Enum.with_index(1)
    |> Enum.find_value({:error, error}, fn {step, number} ->
      case Launch.explain({:error, error}, step) do
        {:error, ^error} -> nil
        {:error, found} -> at(found, number)
      end
    end)
  end

  defp at(error, number), do: {:error, %{error | details: Map.put(error.details, :step, number)}}

  defp step({:ready, result}, _names), do: result
  defp step({kernel, args, opts}, names), do: step(kernel, args, opts, names)
  # A struct that was built by hand.
  defp step(other, _names), do: Arguments.invalid(:step, other, "one that Batch.run/4 recorded")

  defp step(kernel, args, opts, names) do
    with {:ok, args} <- args(args),
         {:ok, kernel} <- Lookup.kernel(kernel, length(args)),
         {:ok, opts} <- Arguments.options(opts, [:size, :into]),
         {:ok, args} <- resolved(args, names, []),
         {:ok, opts} <- into(opts, names),
         {:ok, %{outputs: [_ | _]} = prepared} <- Launch.prepare(kernel, args, opts) do
      {:ok, prepared}
    else
      {:ok, %{outputs: []}} ->
        Arguments.invalid(
          :option,
          opts,
          "into: an element-wise kernel of a batch needs a buffer to write into"
        )

      error ->
        error
    end
  end

  defp args(args) do
    if is_list(args) and not List.improper?(args),
      do: {:ok, args},
      else: Arguments.invalid(:args, args, "a list of arguments")
  end

  defp into(opts, names) do
    case Keyword.fetch(opts, :into) do
      {:ok, into} ->
        with {:ok, [into]} <- resolved([into], names, []),
             do: {:ok, Keyword.put(opts, :into, into)}

      :error ->
        {:ok, opts}
    end
  end

  defp resolved([], _names, done), do: {:ok, Enum.reverse(done)}

  defp resolved([value | rest], names, done) do
    case {name?(value), names} do
      {false, _} -> resolved(rest, names, [value | done])
      {true, %{^value => bound}} -> resolved(rest, names, [bound | done])
      _ -> Arguments.invalid(:name, value, "one that submit/2 is given a buffer or a number for")
    end
  end
end
