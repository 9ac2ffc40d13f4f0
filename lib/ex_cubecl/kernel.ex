defmodule ExCubecl.Kernel do
  @moduledoc """
  Kernels written in Elixir, compiled for the device at run time.

      defmodule Blend do
        use ExCubecl.Kernel

        defkernel saxpy(a, x, y), do: a * x + y

        defkernel blur(input, output) do
          i = index()

          if i > 0 and i < len(input) - 1 do
            output[i] = (input[i - 1] + input[i] + input[i + 1]) / 3
          end
        end
      end

      {:ok, result} = Blend.saxpy(2.0, x, y)
      :ok = Blend.blur(result, output)
      :ok = Blend.saxpy(2.0, x, y, into: output)

  In IEx and Livebook, `kernel/1` makes a kernel without a module:

      iex> require ExCubecl.Kernel
      iex> x = ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)
      iex> saxpy = ExCubecl.Kernel.kernel(fn a, x, y -> a * x + y end)
      iex> {:ok, result} = ExCubecl.Kernel.run(saxpy, [10, x, x])
      iex> ExCubecl.to_list!(result)
      [11.0, 22.0, 33.0]

  ## Two forms

  An **element-wise** kernel is an expression. Its arguments are buffers of the same shape, buffers of one
  element, and numbers; the result is a new buffer. However long the expression is, each element is read and
  written once.

  An **indexed** kernel writes into its arguments, `output[i] = ...`, and reads any element of any argument. It
  runs once for each element of the first output, or for each index of the `size:` of `run/3`, in no particular order;
  `index()` is the index of the invocation. A read outside of a buffer gives 0, a write outside does nothing.

  ## The language

  | | |
  |---|---|
  | numbers | `1`, `2.5`; `true`, `false`; arguments may also be `:nan`, `:infinity`, `:neg_infinity` |
  | arithmetic | `+ - * /`, `div`, `rem`, `**`, `min`, `max`, `abs` |
  | functions | `exp expm1 log log1p sqrt rsqrt cbrt sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf erfc erf_inv sigmoid round floor ceil trunc nan? infinite?` |
  | comparisons | `== != < <= > >=`, `and`, `or`, `not` |
  | bits | `band bor bxor bnot bsl bsr`, `&&& \\|\\|\\| <<< >>>`, `count_ones` |
  | Elixir | pipes, module attributes with a number, macros that are imported or required |
  | conditionals | `if`, `cond`, as expressions or as statements |
  | variables | `x = ...`, any number of times; a variable set before an `if` or a loop can be reassigned in it |
  | loops | `for i <- first..last do ... end`, both bounds included; `sum = for i <- first..last, reduce: 0 do acc -> acc + x[i] end`; `while x > 1, limit: 100 do ... end`, which ends when the condition is false, or after `limit` iterations |
  | indices | `index()`, `index(:x)`, `index(:y)`, `index(:z)`, `len(buffer)`, `shape(buffer, axis)`, `buffer[i]` |
  | types | `cast(x, :f32)`; `bitcast(x, :u32)`, the bits of `x` as another type of the same size |
  | workgroups | `local()`, `group()`, `group_size()`, each also with `:x`, `:y`, `:z`; `tile = shared(:f32, 256)`; `barrier()` |
  | planes | `plane_size()`, `plane_lane()`, `plane_sum(x)`, `plane_product(x)`, `plane_min(x)`, `plane_max(x)`, `plane_broadcast(x, lane)` |
  | atomic operations | `atomic_add(out[i], x)`, `atomic_min`, `atomic_max`, `atomic_and`, `atomic_or`, `atomic_xor`, `atomic_exchange`, alone or as `before = atomic_add(...)` |
  | kernels | kernels of the same module, or of another module: `Other.scale(x)`; they are inlined. A call of an indexed kernel is a line of its own, and runs with the index of the caller. A kernel cannot have the name of a function of this table, or of another kernel or function of its module |

  The threads of a workgroup run together: `defkernel sum(input, out), group: 64 do ... end`, `group: {16, 16}` for two axes; the default is
  256 threads along one axis. `guides/kernels.md` describes workgroups.

  `index(:x)` counts along the last axis of the first output's shape, or of `size:`, `index(:y)` along the axis before it.

  ## Types

  Types are inferred from the buffers of the call and promoted as in Nx; a number takes the type of the other operand, a float together with
  integers gives `:f32`. Numbers that meet no typed operand are of `:f32` or `:s32`, and in a kernel with a buffer of 64 bits of `:f64` or `:s64`
  (`guides/kernels.md`). `/` of integers is `:f32`; `div` and `rem` truncate towards zero, and are 0 if the divisor is 0. Results of comparisons are
  stored as 0 and 1 (`:u8`). `cast` of a float to an integer type truncates it and clamps it to the range, NaN becomes 0; `cast` of an integer
  keeps its low bits; a value that is stored in an output is cast to the type of the output. `min` and `max` are NaN if either operand is NaN.
  Shifts take the distance modulo the number of bits of the type. `guides/kernels.md` has all rules. Each combination of types is compiled once.
  """

  use ExCubecl.Cluster.Callable
  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Device, DType, Error, Native}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Cluster.Placement
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{Cache, Compiler, Definition, Launch, Lookup, Profiler, Source}

  @run_options [:size, :into, :check | AllocOptions.options()]

  @enforce_keys [:parsed, :key]
  defstruct [:parsed, :key]

  @type t :: %__MODULE__{}

  # Proper lists only.
  defguardp proper(args) when length(args) >= 0

  defmacro __using__(_opts) do
    # Here, and not in the quoted code: the module body is evaluated only after all of it was expanded.
    Definition.prepare(__CALLER__)

    quote do
      import ExCubecl.Kernel, only: [defkernel: 2, defkernel: 3]
      @before_compile ExCubecl.Kernel
    end
  end

  defmacro __before_compile__(env) do
    Definition.finish(env)
    defined = Module.get_attribute(env.module, :ex_cubecl_kernels)
    kernels = Map.new(defined, fn {name, kernel} -> {name, struct!(__MODULE__, kernel)} end)

    quote do
      @doc false
      def __kernel__(name, arity), do: Map.get(unquote(Macro.escape(kernels)), {name, arity})

      @doc false
      def __kernels__, do: unquote(kernels |> Map.keys() |> Enum.sort())
    end
  end

  @doc """
  Defines a kernel as two functions: one with its name, and one with `!` that raises.

  They take the arguments of the kernel, and the options of `run/3` as an optional last argument, as in
  `Blend.histogram(x, bins, size: 1000)`. They return `{:ok, buffer}` for an element-wise kernel, `:ok` for an indexed one;
  see `run/3` for the errors.
  """
  defmacro defkernel(call, body), do: Definition.define(call, body, __CALLER__)

  @doc """
  As `defkernel/2`, with the size of a workgroup: `defkernel sum(input, out), group: 64 do ... end`.
  """
  defmacro defkernel(call, opts, body), do: Definition.define(call, [opts, body], __CALLER__)

  @doc """
  Returns the kernel of an anonymous function, for `run/3`.

      iex> require ExCubecl.Kernel
      iex> relu = ExCubecl.Kernel.kernel(fn x -> if x > 0, do: x, else: 0 end)
      iex> x = ExCubecl.buffer!([-1.5, 2.5], [2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Kernel.run!(relu, [x]))
      [0.0, 2.5]
  """
  defmacro kernel(function, opts \\ []), do: Definition.anonymous(function, opts, __CALLER__)

  @doc """
  Queues a kernel, or the kernel `name` of a module as `{module, name}`, on the device and node of its buffers; on each device, if they are `ExCubecl.Replicated`. Returns `{:ok, buffer}` with the result of an element-wise kernel, `:ok` for
  an indexed one. Every later call sees what the kernel writes; `run/3` itself does not wait for the kernel to finish.

  ## Options

    * `:into` - for an element-wise kernel, a buffer of the result's shape and type to write into; the call then
      returns `:ok`
    * `:size` - for an indexed kernel, the global size: a number of invocations, or the lengths of two or three axes,
      the last one for `index(:x)`
    * `:check` - for debugging: `true` returns `:out_of_bounds`, with the argument, the index and `position`, the index of the invocation, if the kernel used
      an index outside of its buffer; of several such indices, any one. The call then waits for the kernel, and the kernel's writes
      remain
    * `:tag`, `:allocation` - of the result, as for `ExCubecl.Buffer.new/4`

  Errors: `:invalid_argument` for the wrong number of arguments, for arguments that are neither buffers nor
  numbers, and for buffers of several devices or nodes; `:type_mismatch` with the line whose types do not match;
  `:shape_mismatch`; `:loop_limit` if the driver of the device stopped a loop before its end; `:overlap` if an output shares bytes with another argument;
  `:unsupported_dtype` for a type that the device cannot calculate with; `:invalid_value` for a number
  that its type cannot hold; `:not_allocated`, and the errors of `ExCubecl.Buffer.new/4`.

      iex> require ExCubecl.Kernel
      iex> next = ExCubecl.Kernel.kernel(fn x, out -> out[index()] = x[index() + 1] end)
      iex> x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
      iex> {:error, error} = ExCubecl.Kernel.run(next, [x, ExCubecl.Buffer.empty!([3], :s32)], check: true)
      iex> Exception.message(error)
      "kernel kernel reads or writes x[3] at position 2, outside of its 3 elements: compare the index with len(x)"

      iex> require ExCubecl.Kernel
      iex> steps = ExCubecl.Kernel.kernel(fn out -> out[index()] = 10 * index(:y) + index(:x) end)
      iex> out = ExCubecl.Buffer.empty!([2, 3], :s32)
      iex> ExCubecl.Kernel.run(steps, [out])
      :ok
      iex> ExCubecl.to_list!(out)
      [[0, 1, 2], [10, 11, 12]]
  """
  @spec run(t | Source.t() | {module, atom}, [Buffer.t() | number], keyword) ::
          {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def run(kernel, args, opts \\ [])

  def run(%Source{} = source, buffers, opts), do: Source.run(source, buffers, opts)

  def run(kernel, args, opts) when proper(args) do
    with {:ok, kernel} <- Lookup.kernel(kernel, length(args)) do
      here = fn -> run_here(kernel, args, opts) end
      Placement.run(&__MODULE__.run/3, [kernel, args, opts], here)
    end
  end

  def run(_kernel, args, _opts), do: no_list(args)

  defp run_here(kernel, args, opts) do
    with {:ok, opts} <- Arguments.options(opts, @run_options),
         :ok <- check_option(opts[:check]),
         {:ok, launch} <- Launch.prepare(kernel, args, opts),
         do: Launch.run(launch, opts)
  end

  defp check_option(check) when check in [nil, true, false], do: :ok
  defp check_option(check), do: Arguments.invalid(:check, check, "true or false")

  defp no_list(args), do: Arguments.invalid(:args, args, "a list of arguments")

  @doc """
  Returns `{:ok, source}`, a kernel in WGSL, for `run/3`. WGSL has features that the kernel language does not have.

  ## Options

    * `:wgsl` - the source. Its buffers are `var<storage, read>` or `var<storage, read_write>` at the bindings 0, 1, 2, ... of group 0
    * `:cuda` - a source in CUDA C++, which is `:unsupported` so far
    * `:entry` - the name of its compute shader, `"main"` by default
    * `:workgroup` - the `@workgroup_size` that the caller expects: a number, or `{x, y, z}`. It is compared with the source

  `run/3` takes buffers only, in the order of the bindings, and `groups:`, the number of workgroups: a number, or `{x, y, z}`. A read or write
  outside of a buffer is moved inside of it or dropped, as WGSL specifies. The source chooses the element types: it sees a buffer of `:u8`
  as words, and the last word is padded with zeros. It returns `:invalid_argument` for `groups:` that no device accepts, and `:unsupported` on CUDA devices.

  Errors: `:invalid_argument` with the line for source that does not compile, for an entry point, a binding or a workgroup size that the source does
  not have; `:unsupported` for `:cuda`.

      iex> {:ok, double} =
      ...>   ExCubecl.Kernel.source(
      ...>     wgsl: \"\"\"
      ...>     @group(0) @binding(0) var<storage, read> x: array<f32>;
      ...>     @group(0) @binding(1) var<storage, read_write> out: array<f32>;
      ...>     @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      ...>       if (id.x < arrayLength(&out)) { out[id.x] = 2.0 * x[id.x]; }
      ...>     }
      ...>     \"\"\",
      ...>     workgroup: 64
      ...>   )
      iex> x = ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)
      iex> out = ExCubecl.Buffer.empty!([3], :f32)
      iex> ExCubecl.Kernel.run(double, [x, out], groups: 1)
      :ok
      iex> ExCubecl.to_list!(out)
      [2.0, 4.0, 6.0]

      iex> {:error, error} = ExCubecl.Kernel.source(wgsl: "@compute @workgroup_size(1)\\nfn main() { let x: f32 = 1u; }")
      iex> Exception.message(error) =~ "line 2"
      true
  """
  @spec source(keyword) :: {:ok, Source.t()} | {:error, Error.t()}
  def source(opts), do: Source.new(opts)

  @doc """
  Compiles a kernel before its first run, and returns `:ok`.

  Arguments are as those of `run/3`, or a type such as `:f32` in place of a buffer of that type. `device:` is the default device
  unless given.

  Errors: those of `run/3`.

      iex> require ExCubecl.Kernel
      iex> half = ExCubecl.Kernel.kernel(fn x, by -> x / by end)
      iex> ExCubecl.Kernel.warm(half, [:f32, 2.0])
      :ok
      iex> ExCubecl.Kernel.warm(half, [:f33, 2.0]) |> elem(1) |> Exception.message()
      "argument 1 (x) of kernel kernel: expected a type such as :f32, or a number, and :f33 is given"
  """
  @spec warm(t | {module, atom}, [Buffer.t() | number | DType.t()], device: Device.id()) ::
          :ok | {:error, Error.t()}
  def warm(kernel, args, opts \\ [])

  def warm(kernel, args, opts) when proper(args) do
    with {:ok, kernel} <- Lookup.kernel(kernel, length(args)),
         {:ok, opts} <- Arguments.options(opts, [:device]),
         {:ok, id} <- Device.resolve(opts[:device]),
         do: Compiler.warm(kernel, args, id)
  end

  def warm(_kernel, args, _opts), do: no_list(args)

  @doc """
  Returns `{:ok, kernels}`, the compiled kernels in the cache, among them the latest ones of `warm/3` and `run/3`: for each its name, its device,
  the kinds of its arguments (`{:buffer, dtype}`, `{:one, dtype}` for a buffer of one element that is broadcast, `:int`,
  `:float`), and the compile time in microseconds.

      iex> require ExCubecl.Kernel
      iex> third = ExCubecl.Kernel.kernel(fn x -> x / 3 end)
      iex> ExCubecl.Kernel.warm(third, [:f16])
      iex> {:ok, kernels} = ExCubecl.Kernel.list()
      iex> Enum.any?(kernels, &(&1.arguments == [x: {:buffer, :f16}] and &1.compile_time > 0))
      true
  """
  @spec list() ::
          {:ok,
           [
             %{
               kernel: atom,
               device: Device.id(),
               arguments: keyword,
               check: boolean,
               compile_time: non_neg_integer
             }
           ]}
          | {:error, Error.t()}
  def list do
    kernels =
      for {{_, kinds, check, id}, %{name: name, time: time}} <- Cache.all() do
        %{kernel: name, device: id, arguments: kinds, check: check, compile_time: time}
      end

    {:ok, kernels}
  end

  @doc """
  Runs a function and returns `{:ok, {result, timing}}`: the time on the device from the start of the first kernel to the end of the
  last kernel that runs during the call, kernels of other processes included.

  `timing` is a map with nanoseconds: `device_time`, and `time`, the wall time of the caller until the device was done. `clock` is the source of
  `device_time`: `:device` for timestamps of the device, `:host` if the device has none; `device_time` then includes the round trip to the device.
  `device:` is the default device unless given.

      iex> x = ExCubecl.Ops.random_uniform!([100_000], 1)
      iex> {:ok, {result, timing}} = ExCubecl.Kernel.profile(fn -> ExCubecl.Ops.sqrt!(x) end)
      iex> ExCubecl.shape!(result)
      [100_000]
      iex> timing.device_time > 0 and timing.device_time <= timing.time
      true
  """
  @spec profile([device: Device.id()], (() -> result)) ::
          {:ok,
           {result,
            %{
              device_time: non_neg_integer,
              time: non_neg_integer,
              clock: :device | :host
            }}}
          | {:error, Error.t()}
        when result: term
  def profile(opts \\ [], fun)

  def profile(opts, fun) when is_function(fun, 0) do
    with {:ok, opts} <- Arguments.options(opts, [:device]),
         {:ok, id} <- Device.resolve(opts[:device]),
         do: Profiler.run(id, fun)
  end

  def profile(_opts, other),
    do: Arguments.invalid(:fun, other, "a function without arguments as the last argument")

  @doc """
  Returns `{:ok, %{size: kernels, max: max, hits: hits, misses: misses, programs: count}}`: the number of kernels in the cache, one for each
  combination of types, the cache hits and misses, and the number of different programs that the cache and the devices that compiled
  them keep. Both evict the least recently used entry: a device keeps 512 compiled kernels, and fewer if they are large. An evicted kernel is
  compiled again at its next call. A CUDA device evicts none; it accepts 16,384.

      iex> {:ok, cache} = ExCubecl.Kernel.cache()
      iex> cache.max
      1024
  """
  @spec cache() ::
          {:ok,
           %{
             size: non_neg_integer,
             max: pos_integer,
             hits: non_neg_integer,
             misses: non_neg_integer,
             programs: non_neg_integer
           }}
          | {:error, Error.t()}
  def cache do
    with {:ok, programs} <- Error.from_native(&Native.kernel_count/0),
         do: {:ok, Map.put(Cache.stats(), :programs, programs)}
  end
end
