# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Backend do
    @moduledoc """
    An `Nx.Backend`: tensors of Nx in the memory of any device. The module exists if Nx is among the dependencies.

        Nx.default_backend(ExCubecl.Backend)
        Nx.default_backend({ExCubecl.Backend, device: {:cuda, 0}})

    ## Options

      * `:device` - the device, by default that of `ExCubecl.default_device/0`
      * `:tag` - the tag of the buffers, see `ExCubecl.Memory.report/1`
      * `:fallback` - `:host` runs what the device cannot run on `Nx.BinaryBackend` and counts it, see `fallbacks/0`; `:raise`
        raises `ExCubecl.Error` with the operation, the type and the device instead. Defaults to `:host`
      * `:host_limit` - tensors of up to this many elements that are made on the host stay there, and operations among them run
        on the host, which is faster than a launch. Defaults to 64; with 0 all but constants are on the device

    `inspect` of a tensor names the device, except with `config :ex_cubecl, add_backend_on_inspect: false`.

    `guides/nx.md` describes what runs where.
    """

    @behaviour Nx.Backend

    alias ExCubecl.{Buffer, Device, Error, View}
    alias ExCubecl.Error.{Arguments, Operation}
    alias ExCubecl.Nx.{ElementWise, Fallback, Indexing, Layout, Reduction, Storage}

    alias ExCubecl.Nx.{
      Bits,
      Blocks,
      Complex,
      Dot,
      FFT,
      Float8,
      Folding,
      Inspection,
      LinAlg,
      Options,
      Order,
      Places,
      Scan,
      Tracing,
      Windows
    }

    alias Nx.Tensor, as: T

    defstruct [:state, :config, :released]

    @doc """
    Returns how often the host had to run an operation since the VM was started: a map from `{operation, type, device}` to a count.

    Operations on small tensors that are in host memory anyway are not counted.
    """
    @spec fallbacks() :: %{{atom, Nx.Type.t(), Device.id()} => pos_integer}
    def fallbacks, do: Fallback.counts()

    ## Options

    @impl true
    def init(opts) do
      [config: config(opts)]
    end

    @doc false
    def config(opts), do: Options.config(opts, %__MODULE__{})

    ## Tensors of numbers and binaries

    @impl true
    def constant(out, number, opts) do
      config = config(opts)
      %{data: %{state: element}} = Nx.BinaryBackend.constant(%{out | shape: {}}, number, [])
      Storage.fill(out, element, config)
    end

    @impl true
    def from_binary(out, binary, opts) when is_bitstring(binary),
      do: Storage.from_binary(out, binary, config(opts))

    def from_binary(out, iodata, opts), do: from_binary(out, IO.iodata_to_binary(iodata), opts)

    @impl true
    def to_binary(tensor, limit), do: Storage.to_binary(tensor, limit)

    @impl true
    defdelegate inspect(tensor, opts), to: Inspection

    ## Carriers

    @impl true
    def backend_copy(tensor, backend, opts), do: copy(tensor, backend, opts)

    @impl true
    def backend_transfer(%T{data: %{config: config}} = tensor, __MODULE__, opts) do
      case config(opts) do
        %{device: device} = new when device == config.device -> configured(tensor, new)
        _other -> moved(tensor, copy(tensor, __MODULE__, opts))
      end
    end

    def backend_transfer(tensor, backend, opts), do: moved(tensor, copy(tensor, backend, opts))

    defp configured(%T{data: data} = tensor, config),
      do: %{tensor | data: %{data | config: config}}

    defp moved(tensor, copy) do
      backend_deallocate(tensor)
      copy
    end

    defp copy(tensor, backend, _opts) when backend in [Nx.Tensor, Nx.BinaryBackend],
      do: Storage.to_host(tensor)

    # The copy has the memory of its elements only, in row-major order.
    defp copy(%T{data: %{state: %View{}, config: from}} = tensor, __MODULE__, opts) do
      %{device: device} = config = config(opts)
      options = Keyword.delete(Storage.buffer_options(config), :device)
      buffer = Storage.buffer(tensor, from)
      Storage.put(tensor, Buffer.transfer!(buffer, device, options), config)
    end

    defp copy(tensor, __MODULE__, opts), do: configured(tensor, config(opts))

    defp copy(tensor, backend, opts),
      do: backend.from_binary(tensor, to_binary(tensor, Nx.size(tensor)), opts)

    @impl true
    def backend_deallocate(%T{data: %{state: %View{}}} = tensor), do: Storage.release(tensor)
    def backend_deallocate(_tensor), do: :ok

    @impl true
    def to_batched(out, tensor, opts) do
      [size, batch] = [elem(tensor.shape, 0), elem(out.shape, 0)]
      rest = rem(size, batch)
      whole = for index <- 0..(div(size, batch) - 1)//1, do: {index * batch, batch}
      last = if rest != 0 and opts[:leftover] == :repeat, do: [{size - rest, rest}], else: []
      Stream.map(whole ++ last, fn {from, count} -> batch(out, tensor, from, count) end)
    end

    # The last batch continues with the first elements.
    defp batch(out, tensor, from, count) do
      case elem(out.shape, 0) - count do
        0 -> %{rows(tensor, from, count) | names: out.names}
        more -> concatenate(out, [rows(tensor, from, count), rows(tensor, 0, more)], 0)
      end
    end

    defp rows(%T{shape: shape} = tensor, from, count) do
      [_ | lengths] = Tuple.to_list(shape)
      starts = [from | Enum.map(lengths, fn _ -> 0 end)]
      steps = Enum.map(starts, fn _ -> 1 end)

      slice(
        %{tensor | shape: put_elem(shape, 0, count)},
        tensor,
        starts,
        [count | lengths],
        steps
      )
    end

    ## Creation on the host or the device

    @impl true
    def eye(out, opts), do: created(:eye, out, [], config(opts))

    @impl true
    def iota(out, axis, opts), do: created(:iota, out, [axis], config(opts))

    defp created(name, out, args, config) do
      host_args = [out | args] ++ [[]]

      if Nx.size(out.shape) <= config.host_limit,
        do: Fallback.on_host(name, host_args, config),
        else: finished(attempt(fn -> made(name, out, args, config) end), name, host_args, config)
    end

    defp made(name, %{type: {kind, 8}} = out, args, config) when kind not in [:s, :u],
      do:
        Float8.run(name, [out | args], config, fn [out | args] ->
          made(name, out, args, config)
        end)

    defp made(name, %{type: {:c, _}} = out, args, config),
      do: Complex.run(name, [out | args], config)

    defp made(:eye, out, [], config), do: Layout.eye(out, config)
    defp made(:iota, out, [axis], config), do: Layout.iota(out, axis, config)

    callbacks = Nx.Backend.behaviour_info(:callbacks)

    ## Callbacks of later versions of Nx

    if {:block, 4} in callbacks do
      @impl true
      def block(struct, out, args, fun) do
        case Blocks.callback(struct, args) do
          {name, options} -> run(name, [out | args] ++ options)
          :default -> apply(fun, [struct | args])
        end
      end
    end

    @doc false
    # Whether `block/4` does not run a block of these tensors by its default implementation.
    def native_block?(struct, args), do: Blocks.callback(struct, args) != :default

    if {:top_k, 3} in callbacks do
      @impl true
      def top_k(out, tensor, opts), do: run(:top_k, [out, tensor, opts])
    end

    if {:from_pointer, 5} in callbacks do
      @impl true
      def from_pointer(pointer, type, shape, opts, options),
        do:
          ExCubecl.Nx.Pointers.from_pointer(
            pointer,
            Nx.template(shape, type, options),
            config(opts)
          )

      @impl true
      def to_pointer(tensor, opts), do: ExCubecl.Nx.Pointers.to_pointer(tensor, opts)
    end

    ## compiler: ExCubecl.Backend

    for {name, arity} <- Nx.Defn.Compiler.behaviour_info(:callbacks) do
      @doc false
      def unquote(name)(unquote_splicing(List.duplicate({:_, [], nil}, arity))) do
        expected = "compiler: ExCubecl; ExCubecl.Backend is a backend of Nx"
        Operation.unwrap!(Arguments.invalid(:compiler, __MODULE__, expected), __MODULE__, [])
      end
    end

    ## Everything else

    Code.ensure_loaded!(Nx.BinaryBackend)

    # Where Nx.BinaryBackend leaves an optional callback to Nx, so does this backend.
    # Decompositions, scans and transforms, which Nx would calculate with other operations, are the exception.
    for {name, arity} <- callbacks -- Module.definitions_in(__MODULE__, :def),
        function_exported?(Nx.BinaryBackend, name, arity) or
          name in ([:qr, :cholesky, :eigh, :svd, :fft2, :ifft2] ++ Scan.names()) do
      args = Macro.generate_arguments(arity, __MODULE__)

      @impl true
      if name in (ElementWise.names() -- ElementWise.for_finite()) do
        [out | tensors] = args
        states = Macro.generate_arguments(arity - 1, Fallback)

        binaries =
          for {tensor, state} <- Enum.zip(tensors, states),
              do: quote(do: %T{data: %__MODULE__{state: unquote(state)}} = unquote(tensor))

        all_binary =
          states
          |> Enum.map(&quote(do: is_binary(unquote(&1))))
          |> Enum.reduce(&quote(do: unquote(&2) and unquote(&1)))

        def unquote(name)(unquote(out), unquote_splicing(binaries)) when unquote(all_binary),
          do: run_on_binaries(unquote(name), unquote(out), unquote(tensors))
      end

      def unquote(name)(unquote_splicing(args)), do: run(unquote(name), unquote(args))
    end

    @places Places.names()

    # Elements that are all the same stay the same.
    defp run(:broadcast, [out, %T{shape: {}, data: %__MODULE__{state: one} = data} | _])
         when is_bitstring(one),
         do: Storage.fill(out, one, data.config)

    defp run(name, [out, %T{data: %__MODULE__{state: {:fill, _}} = data} | _])
         when name in [:reshape, :squeeze, :broadcast, :transpose, :slice, :reverse],
         do: %{out | data: data}

    defp run(name, [out, %T{data: %__MODULE__{state: bits} = data} | _])
         when name in [:reshape, :squeeze] and is_bitstring(bits),
         do: %{out | data: data}

    defp run(name, args) do
      tensors = Fallback.tensors(args)
      config = Fallback.config(tensors)

      cond do
        Enum.any?(tensors, &Tracing.symbol?/1) ->
          Tracing.callback(name, args, config)

        Enum.all?(tensors, &Storage.small?(&1, config.host_limit)) and
            not ElementWise.on_device?(name, tensors) ->
          run_on_host(name, args, config)

        name in @places ->
          case Places.run(name, args, config) do
            {:ok, result} -> result
            :none -> run_on_device(name, args, config)
          end

        true ->
          run_on_device(name, args, config)
      end
    end

    # Most programs calculate with many numbers: the shortest way for these.
    defp run_on_binaries(name, out, [%{data: %{config: config}} | _] = tensors) do
      Fallback.of_binaries(name, out, tensors, config)
    rescue
      ArithmeticError -> run_on_device(name, [out | tensors], config)
    end

    # Nx.BinaryBackend raises where a float overflows; a device has infinity.
    defp run_on_host(name, args, config) do
      Fallback.on_host(name, args, config)
    rescue
      ArithmeticError -> run_on_device(name, args, config)
    end

    defp run_on_device(name, args, config),
      do: finished(attempt(fn -> native(name, args, config) end), name, args, config)

    modules = [
      Bits,
      Dot,
      ElementWise,
      FFT,
      Indexing,
      Layout,
      LinAlg,
      Order,
      Reduction,
      Scan,
      Windows
    ]

    for module <- modules, name <- module.names() do
      defp on_real(unquote(name), args, config),
        do: unquote(module).run(unquote(name), args, config)
    end

    defp on_real(_name, _args, _config), do: :host

    @names for module <- modules, name <- module.names(), uniq: true, do: name
    @complex_names Complex.names() ++ Folding.names() ++ FFT.names() ++ Layout.names()

    @doc false
    # Whether the device runs a callback of this name, for numbers of the types that it has.
    def native?(name, complex?), do: name in if(complex?, do: @complex_names, else: @names)

    defp native(name, args, config) do
      tensors = Fallback.tensors(args)

      cond do
        Folding.run?(name, args, tensors) ->
          with :host <- on_real(name, args, config),
               do: Folding.run(name, args, config, &apply(__MODULE__, &1, &2))

        Float8.run?(name, args, tensors) ->
          Float8.run(name, args, config, &native(name, &1, config))

        Complex.run?(name, args, tensors) ->
          Complex.run(name, args, config)

        true ->
          on_real(name, args, config)
      end
    end

    @doc false
    # The result of a callback that may share the memory of its operand, with the handle of the operand in that case: a program frees the memory with the last of
    # both. `:none` if the callback itself must run.
    def view(name, [out, %T{data: %__MODULE__{state: %View{}, config: config}} | _] = args) do
      case attempt(fn -> Layout.run(name, args, config) end) do
        {:share, view} -> {:ok, Storage.put(out, view, config)}
        {:ok, buffer} -> {:ok, Storage.put(out, buffer, config)}
        _ -> :none
      end
    end

    def view(_name, _args), do: :none

    # Operands are made by functions that raise.
    defp attempt(native) do
      native.()
    rescue
      error in Error -> {:error, error}
    end

    defp finished({:ok, result}, _name, [outs | _], config) when is_tuple(outs) do
      [outs, buffers] = for tuple <- [outs, result], do: Tuple.to_list(tuple)
      pairs = Enum.zip(outs, buffers)
      List.to_tuple(for {out, buffer} <- pairs, do: Storage.put(out, buffer, config))
    end

    defp finished({:ok, state}, _name, [out | _], config), do: Storage.put(out, state, config)

    defp finished({:fill, element}, _name, [out | _], config),
      do: Storage.fill(out, element, config)

    defp finished({:share, view}, _name, [out | _], config),
      do: Error.unwrap!(Storage.share(out, view, config))

    defp finished(:host, name, args, config), do: Fallback.run(name, args, config)

    defp finished(result, name, args, config) when result in [:raises, :on_host],
      do: Fallback.on_host(name, args, config)

    defp finished({:error, %Error{reason: reason} = error}, name, args, config) do
      if reason in [:unsupported, :unsupported_dtype],
        do: Fallback.run(name, args, config),
        else: raise(error)
    end
  end
end
