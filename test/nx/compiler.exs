defmodule ExCubecl.NxCompilerTest do
  # The callbacks and options of the compiler, control flow, effects, memory and the cache of programs. The results are those of Nx.Defn.Evaluator on Nx.BinaryBackend.
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, Compiler, Error, Memory}

  defmodule Definitions do
    import Nx.Defn

    defn(softmax(x), do: Nx.exp(x) / Nx.sum(Nx.exp(x)))

    defn count(x) do
      {_, x} = while({i = 0, x}, i < 10, do: {i + 1, x * 2 + Nx.tensor([1, 2, 3])})
      x
    end

    defn nested(n) do
      {_, total, _} =
        while {i = 0, total = 0, n}, i < n do
          {_, inner, _} = while({j = 0, inner = 0, i}, j < i, do: {j + 1, inner + i * j, i})
          {i + 1, if(Nx.remainder(i, 2) == 0, do: total + inner, else: total - 1), n}
        end

      total
    end

    # A division that is needed in two conditions, and only there.
    defn lazy(x, y) do
      sum = Nx.as_type(Nx.sum(x), :s64)
      quotient = Nx.quotient(sum, y)
      a = if y > 0, do: quotient, else: sum
      b = if y > 1, do: quotient + 1, else: sum

      chosen =
        cond do
          y > 10 -> {x, a}
          y > 5 -> {x + 1, b}
          true -> {x, a + b}
        end

      {chosen, a - b}
    end

    defn either(pred, x) do
      if pred, do: x, else: Nx.sort(Nx.sin(x))
    end

    defn(same(x, pred), do: if(pred, do: x, else: x))

    defn gradient(x) do
      grad(x, fn x ->
        if Nx.sum(x) > 0, do: Nx.sum(Nx.sin(x) * 3), else: Nx.sum(Nx.cos(x))
      end)
    end

    defn(fold(x), do: Nx.reduce(x, 0, [axes: [0]], fn a, b -> a + b * 2 end))
    defn(hooked(x), do: hook(x + 1, :seen, &send(self(), {:first, &1})) * 2)

    defn hooks_in_branches(x, pred) do
      if pred,
        do: hook(x, :yes, &send(self(), {:yes, &1})),
        else: hook(x, :no, &send(self(), {:no, &1}))
    end

    defn(unnamed(x), do: hook(x, :named))

    # Only the value of the last round is used.
    defn rounds(x) do
      {_, y, _} =
        while {i = 0, _y = x, x}, i < 3 do
          {i + 1, hook(x + i, :round, &send(self(), {:round, Nx.to_number(&1)})), x}
        end

      y
    end

    defn(decomposed(x), do: Nx.LinAlg.invert(x))
    defn(random(key), do: Nx.Random.normal(key, 0, 1, shape: {200}))

    defn(chosen(pred, x), do: if(pred, do: Nx.sort(x), else: Nx.argsort(x)))

    defn count_up(x) do
      {_, x} = while({i = 0, x}, i < 100, do: {i + 1, x + 1})
      x
    end

    # The same structure in two definitions, and another constant.
    defn(first(x), do: Nx.sin(x) * 2 + 1)
    defn(second(x), do: Nx.sin(x) * 2 + 1)
    defn(third(x), do: Nx.sin(x) * 3 + 1)
    defn(zero(x), do: x * 0.0)
    defn(negative_zero(x), do: x * -0.0)
  end

  alias __MODULE__.Definitions

  # A device for the tests of memory: one for each of them would compile its kernels again.
  setup_all do
    {:ok, {runtime, _} = device} = ExCubecl.default_device()
    {:ok, %{id: id}} = ExCubecl.Device.open(device, as: {runtime, 1_720})

    on_exit(fn ->
      :ok = ExCubecl.Device.reset(id)
      :ok = ExCubecl.Device.remove(id)
    end)

    %{device: id}
  end

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    Nx.Defn.default_options([])
    :ok
  end

  defp ours(fun, args, opts \\ []),
    do: apply(Nx.Defn.jit(fun, [compiler: ExCubecl] ++ opts), args)

  defp theirs(fun, args), do: apply(Nx.Defn.jit(fun, compiler: Nx.Defn.Evaluator), args)

  defp tensors(container), do: Nx.Defn.Composite.flatten_list([container])

  defp on_host(container),
    do: Enum.map(tensors(container), &Nx.backend_copy(&1, Nx.BinaryBackend))

  defp assert_same(fun, args, opts \\ []) do
    result = ours(fun, args, opts)
    assert Enum.all?(tensors(result), &is_struct(&1.data, Backend))
    assert on_host(result) == on_host(theirs(fun, args))
    result
  end

  defp large(count \\ 1000), do: Nx.iota({count}, type: :f32)

  describe "callbacks" do
    test "jit gives tensors of the backend, with the names of the definition" do
      for fun <- [&Nx.multiply(&1, 2), &Nx.rename(Nx.add(&1, &1), [:b]), & &1],
          x <- [Nx.tensor([1, 2], names: [:a]), Nx.iota({100}, names: [:a])],
          do: assert_same(fun, [x])
    end

    test "a compiled function runs for other tensors of the same type" do
      fun = Nx.Defn.compile(&Nx.subtract/2, [Nx.template({3}, {:s, 64}), 1], compiler: ExCubecl)
      assert Nx.to_flat_list(fun.(Nx.tensor([5, 6, 7], type: :s64), 2)) == [3, 4, 5]
      assert_raise ArgumentError, fn -> fun.(Nx.tensor([5, 6], type: :s64), 2) end
    end

    test "containers, vectorized tensors and gradients" do
      assert_same(&%{sum: Nx.add(&1, &2), pair: {&1, Nx.sum(&2)}}, [large(), Nx.tensor(2)])
      vectors = Nx.vectorize(Nx.iota({3, 100}, type: :f32), :row)
      result = assert_same(&Nx.sum(Nx.multiply(&1, 2)), [vectors])
      assert result.vectorized_axes == [row: 3]

      for x <- [large(), Nx.negate(large()), Nx.tensor([0.5])],
          do: assert_close(&Definitions.gradient/1, [x])
    end

    defp assert_close(fun, args) do
      for {a, b} <- Enum.zip(on_host(ours(fun, args)), on_host(theirs(fun, args))),
          do: assert(Nx.to_number(Nx.all_close(a, b, rtol: 1.0e-5, atol: 1.0e-6)) == 1)
    end

    if {:__stream__, 7} in Nx.Defn.Compiler.behaviour_info(:callbacks) do
      test "streams" do
        add = fn x, sum -> {Nx.multiply(x, 2), Nx.add(x, sum)} end
        template = Nx.template({}, {:s, 64})
        stream = apply(Nx.Defn, :stream, [add, [template, 0], [compiler: ExCubecl]])
        for i <- 1..3, do: Nx.Stream.send(stream, i)
        assert for(_ <- 1..3, do: Nx.to_number(Nx.Stream.recv(stream))) == [2, 4, 6]
        assert Nx.to_number(Nx.Stream.done(stream)) == 6
      end
    end

    test "as the default compiler, also for what the backend leaves to the host" do
      Nx.default_backend(Backend)
      Nx.Defn.default_options(compiler: ExCubecl)
      x = Nx.tensor([[1.0, 2.0], [3.0, 4.0]], type: :c64)
      {q, r} = Nx.LinAlg.qr(x)
      assert is_struct(q.data, Backend)
      assert Nx.to_number(Nx.all_close(Nx.dot(q, r), x)) == 1
      assert Nx.Defn.default_options() == [compiler: ExCubecl]
    end

    test "the backend of the results" do
      Nx.default_backend({Backend, host_limit: 3})
      assert {Backend, options} = Nx.Defn.to_backend(compiler: ExCubecl)
      assert {options[:host_limit], options[:device]} == {3, ExCubecl.default_device!()}
      assert Nx.Defn.jit(& &1, compiler: ExCubecl).(Nx.tensor([1, 2])).data.config.host_limit == 3
    end

    test "a serving" do
      serving =
        Nx.Serving.new(fn opts -> Nx.Defn.jit(&Nx.multiply(&1, 2), opts) end, compiler: ExCubecl)

      batch = Nx.Batch.stack([Nx.tensor([1, 2]), Nx.tensor([3, 4])])
      assert Nx.to_flat_list(Nx.Serving.run(serving, batch)) == [2, 4, 6, 8]
    end
  end

  describe "options" do
    test "unknown options and values are refused" do
      for {opts, message} <- [
            {[client: :host], ~r/client/},
            {[cache: 1], ~r/cache/},
            {[memory_limit: -1], ~r/memory_limit/},
            {[device: {:nowhere, 0}], ~r/nowhere/}
          ] do
        assert_raise Error, message, fn -> ours(& &1, [1], opts) end
      end
    end

    test "a template is an argument of which only the shape is taken, as in the initialization of models" do
      template = Nx.template({2, 3}, :f32)
      assert Nx.to_list(ours(&Nx.iota(Nx.shape(&1)), [template])) == [[0, 1, 2], [3, 4, 5]]

      for fun <- [&Nx.sin/1, &Nx.sum/1, &Nx.reshape(&1, {6}), & &1],
          do: assert_raise(RuntimeError, ~r/TemplateBackend/, fn -> ours(fun, [template]) end)
    end

    test "shapes in descriptions of steps are lists of numbers" do
      explanation = Compiler.explain(&Nx.sin(Nx.cos(&1)), [Nx.template({100, 101}, :f32)])
      assert inspect(explanation) =~ "of [100, 101]"
    end

    test "the errors of the compiler's options and of explain/3 have a name" do
      assert_raise Error, ~r/^ExCubecl.Compiler: invalid option :client/, fn ->
        ours(& &1, [1], client: :cuda)
      end

      assert_raise Error, ~r/^explain: invalid args/, fn ->
        Compiler.explain(& &1, Nx.tensor(1))
      end

      assert_raise Error, ~r/^ExCubecl.Backend: invalid compiler .*compiler: ExCubecl;/, fn ->
        Nx.Defn.jit(& &1, compiler: Backend).(Nx.tensor(1))
      end
    end

    test "those of Axon, Nx.Serving and Nx.Defn.Evaluator are passed on by them, and have no effect" do
      of_axon = [debug: false, mode: :train, seed: 1, raise_on_none: true, print_values: false]
      others = [global_layer_options: [], batch_keys: [:default], garbage_collect: true]
      assert Nx.to_number(ours(&Nx.add(&1, 1), [Nx.tensor(1)], of_axon ++ others)) == 2
    end

    test "a program that needs more memory than it may is refused before it starts" do
      fun = fn x -> x |> Nx.sin() |> Nx.dot(Nx.cos(x)) end
      x = large(4096)
      for limit <- [nil, 3 * 4 * 4096], do: ours(fun, [x], memory_limit: limit)

      error = assert_raise(Error, fn -> ours(fun, [x], memory_limit: 10_000) end)
      assert {error.reason, error.details.available} == {:out_of_memory, 10_000}
      assert error.details.requested >= 4 * 4096
      assert Exception.message(error) =~ ~r/memory_limit: allows/
    end
  end

  describe "control flow" do
    test "loops" do
      for x <- [[1, 2, 3], [0, -5, 7]], do: assert_same(&Definitions.count/1, [Nx.tensor(x)])
      for n <- [0, 1, 7], do: assert_same(&Definitions.nested/1, [Nx.tensor(n)])
    end

    test "few rounds become nodes without a loop" do
      loops = fn fun, args ->
        for %{kind: :loop} = step <- Compiler.explain(fun, args).steps, do: step
      end

      assert loops.(&Definitions.count/1, [Nx.tensor([1, 2, 3])]) == []
      assert loops.(&Definitions.random/1, [Nx.Random.key(1)]) == []
      assert [_] = loops.(&Definitions.nested/1, [Nx.tensor(7)])
      assert [_] = loops.(&Definitions.count_up/1, [large(64)])

      for name <- [:down, :odd, :unsigned, :reversed] do
        assert_same(&apply(__MODULE__.Loops, name, [&1]), [Nx.tensor([1, 2, 3])])
        assert loops.(&apply(__MODULE__.Loops, name, [&1]), [Nx.tensor([1, 2, 3])]) == []
      end
    end

    test "a loop that runs never returns its initial values, which it does not free" do
      x = Nx.backend_copy(large(), Backend)
      [a, b] = tensors(ours(&__MODULE__.Loops.never/1, [x]))
      assert Nx.to_flat_list(a) == Nx.to_flat_list(b)
      assert Nx.to_flat_list(x) == Nx.to_flat_list(large())
    end

    test "only the chosen branch runs, and values that branches share run if one needs them" do
      for y <- [0, 1, 2, 6, 11], do: assert_same(&Definitions.lazy/2, [large(), Nx.tensor(y)])
    end

    test "components of a tuple that only branches take, more than once" do
      for pred <- [0, 1],
          do: assert_same(&__MODULE__.Loops.branches/2, [Nx.tensor(pred, type: :u8), large(200)])
    end

    test "a branch that returns a value from outside" do
      x = Nx.backend_copy(large(), Backend)

      for pred <- [0, 1] do
        result = ours(fn x, p -> Definitions.same(Nx.add(x, 1), p) end, [x, pred])
        assert Nx.to_flat_list(result) == Nx.to_flat_list(Nx.add(large(), 1))
      end
    end

    test "a reduction of numbers on the host is none of the rows of a kernel" do
      fun = fn x, y -> Nx.logical_or(Nx.quotient(x, y), Nx.sum(Nx.iota({3}, type: :f32))) end
      assert_same(fun, [Nx.tensor([1, 2, 3]), Nx.tensor([2, 2, 2])])
    end

    test "an operation that the backend has is one step" do
      x = Nx.template({200, 2}, :f32)
      places = Nx.template({3}, :s64)

      for {fun, args, steps} <- [
            {&Nx.take/2, [x, places], 1},
            {&Nx.take_along_axis(&1, &2, axis: 0), [x, Nx.template({3, 2}, :s64)], 1},
            {&Nx.top_k(&1, k: 2), [x], 1}
          ] do
        assert length(Compiler.explain(fun, args).steps) == steps
      end
    end

    test "functions as arguments" do
      for x <- [Nx.iota({4, 3}), Nx.iota({100, 3})], do: assert_same(&Definitions.fold/1, [x])
    end

    test "defaults of optional operations, and operations with several results" do
      assert_close(&Definitions.decomposed/1, [Nx.tensor([[1.0, 2.0], [3.0, 4.0]])])
      assert_close(&Nx.LinAlg.lu/1, [Nx.tensor([[1.0, 2.0], [3.0, 4.0]])])
      assert_close(&Nx.cumulative_sum/1, [large(64)])
      assert_same(&Nx.top_k(&1, k: 2), [Nx.tensor([3, 9, 1, 7])])
      assert_same(&Nx.take(&1, &2), [Nx.iota({200, 2}), Nx.tensor([3, 0, 199])])
      assert_close(&Definitions.random/1, [Nx.Random.key(1)])
    end
  end

  defmodule Rows do
    # Two reductions of each row, and elements that read what they reduced. All numbers are integers.
    def centered(y, axis \\ 1) do
      z = Nx.remainder(y, 7)
      most = Nx.reduce_max(z, axes: [axis], keep_axes: true)
      z |> Nx.subtract(most) |> Nx.multiply(2) |> Nx.add(Nx.sum(z, axes: [axis], keep_axes: true))
    end
  end

  defmodule Loops do
    import Nx.Defn

    defn branches(pred, x) do
      {values, places} = Nx.top_k(x, k: 150)
      a = if pred, do: values * 2, else: Nx.as_type(places, :f32)
      b = if pred, do: a, else: Nx.rename(values, [:best]) + 1
      {a, b}
    end

    defn doubled(x, n) do
      {_, y, constant, _} =
        while({i = 0, y = x, constant = x, n}, i < n, do: {i + 1, y + y, constant, n})

      {y, constant}
    end

    defn down(x) do
      {_, x} = while({i = 5, x}, i > 0, do: {i - 1, x * i})
      x
    end

    defn odd(x) do
      {_, x} = while({i = 0, x}, i < 7, do: {i + 2, x + i})
      x
    end

    defn unsigned(x) do
      {_, x} = while({i = Nx.u8(1), x}, i <= 3, do: {Nx.add(1, i), x - i})
      x
    end

    defn reversed(x) do
      {_, x} = while({i = 0, x}, 4 > i, do: {i + 1, x + Nx.tensor([3, 5, 7, 9])[i]})
      x
    end

    # Views of a value from outside, of the initial values, and of a value of the branch.
    defn views(x, n) do
      y = x + 1
      rows = Nx.reshape(y, {10, 100})

      {_, a, b, _, _} =
        while {i = 0, a = rows, b = Nx.reshape(rows, {1000}), n, rows}, i < n do
          {i + 1, Nx.reshape(b, {10, 100}), Nx.reshape(Nx.reverse(a) + rows, {1000}), n, rows}
        end

      c = if n > 1, do: Nx.reshape(a, {1000}), else: y
      {c, b, if(n > 2, do: Nx.reshape(c * 2, {1000, 1}), else: Nx.reshape(x, {1000, 1}))}
    end

    defn never(x) do
      y = x * 1.0 + 0
      {_, z} = while({i = 0, y}, i < 0, do: {i + 1, y * 2})
      {z, y}
    end
  end

  describe "hooks" do
    test "are called with the value, in the branch that runs" do
      assert_same(&Definitions.hooked/1, [large()])
      assert_receive {:first, ours}
      assert_receive {:first, theirs}
      assert on_host(ours) == on_host(theirs)

      for {pred, name} <- [{1, :yes}, {0, :no}] do
        ours(&Definitions.hooks_in_branches/2, [large(), pred])
        assert_receive {^name, _}
        refute_received {_, _}
      end
    end

    test "are called in each round of a loop" do
      assert_same(&Definitions.rounds/1, [Nx.tensor(7)])
      for value <- [7, 8, 9], _ <- [:ours, :theirs], do: assert_receive({:round, ^value})
    end

    test "are named in options, and their values stay" do
      test = self()
      fun = fn x -> Nx.sum(Definitions.unnamed(Nx.multiply(x, 2))) end
      assert Nx.to_number(ours(fun, [large()])) == 999_000.0
      hooks = %{named: &send(test, {:seen, &1})}
      assert Nx.to_number(ours(fun, [large()], hooks: hooks)) == 999_000.0
      assert_receive {:seen, tensor}
      assert Nx.to_flat_list(tensor) == Nx.to_flat_list(Nx.multiply(large(), 2))
    end
  end

  if function_exported?(Nx, :runtime_call, 4) do
    defmodule Calls do
      def doubled(x, opts) do
        send(opts[:to], {:called, x})
        Nx.multiply(x, 2)
      end

      def pair({x, %{y: y}}, opts) do
        send(opts[:to], {:called, {x, y}})
        %{a: Nx.add(x, y), b: {Nx.sum(x)}}
      end

      def wrong(x, _opts), do: Nx.as_type(x, :f64)
      def raising(_x, _opts), do: raise("no result")
    end

    defp runtime_call(template, value, name) do
      fun = Function.capture(__MODULE__.Calls, name, 2)
      apply(Nx, :runtime_call, [template, value, [to: self()], fun])
    end

    test "functions that are called while a program runs, on tensors of either backend" do
      scalar = Nx.template({}, :f32)

      for x <- [large(), Nx.tensor([1.0, 2.0])] do
        template = Nx.template(x.shape, :f32)
        fun = &Nx.sin(runtime_call(template, Nx.multiply(&1, 3), :doubled))
        assert_close(fun, [x])
        assert [ours, theirs] = called([])
        assert on_host(ours) == on_host(theirs)

        # The function may keep what it gets.
        assert_same(&Nx.sum(runtime_call(template, &1, :doubled)), [x])
        assert [kept, _] = called([])
        assert on_host(kept) == on_host(x)

        containers = fn x, y ->
          runtime_call(%{a: template, b: {scalar}}, {x, %{y: Nx.negate(y)}}, :pair)
        end

        assert_same(containers, [x, Nx.tensor(2.0)])
        assert_same(&elem(containers.(&1, &1).b, 0), [x])
        assert length(called([])) == 4
      end
    end

    defp called(values) do
      receive do
        {:called, value} -> called(values ++ [value])
      after
        0 -> values
      end
    end

    test "results of such a function that are no tensors of the template" do
      x = large()

      for name <- [:wrong, :raising], compiler <- [ExCubecl, Nx.Defn.Evaluator] do
        fun = Nx.Defn.jit(&runtime_call(Nx.template({1000}, :f32), &1, name), compiler: compiler)
        assert_raise RuntimeError, ~r/template|no result/, fn -> fun.(x) end
      end
    end
  end

  describe "the cache" do
    test "has one program for expressions of one structure" do
      x = large(37)
      before = Compiler.Cache.stats()
      for name <- [:first, :second, :first], do: ours(&apply(Definitions, name, [&1]), [x])
      after_three = Compiler.Cache.stats()
      assert {after_three.misses - before.misses, after_three.hits - before.hits} == {1, 2}
      ours(&Definitions.third/1, [x])
      ours(&Definitions.first/1, [large(38)])
      assert Compiler.Cache.stats().misses - after_three.misses == 2
      ours(&Definitions.second/1, [large(39)], cache: false)
      assert Compiler.Cache.stats().misses - after_three.misses == 2
    end

    test "tells zeros of either sign, and tensors that a function closed over, apart" do
      for name <- [:zero, :negative_zero] do
        binary = Nx.to_binary(ours(&apply(Definitions, name, [&1]), [large(5)]))
        assert binary == Nx.to_binary(theirs(&apply(Definitions, name, [&1]), [large(5)]))
      end

      both = fn x -> {Nx.multiply(x, 0.0), Nx.multiply(x, -0.0)} end
      [positive, negative] = tensors(ours(both, [large(2)]))
      assert Nx.to_binary(positive) != Nx.to_binary(negative)

      for y <- [Nx.tensor([1, 2]), Nx.tensor([3, 4])],
          do: assert_same(&Nx.add(&1, y), [Nx.tensor([10, 20])])
    end
  end

  describe "memory" do
    # What earlier tests had on the device is freed.
    setup %{device: device} do
      ExCubecl.Case.settled(device)
      :ok
    end

    @elements 256 * 1024

    test "of intermediate values is freed at their last use", %{device: device} do
      x = Nx.backend_copy(Nx.eye(512, type: :f32), {Backend, device: device})
      fun = fn x -> Enum.reduce(1..8, x, fn _, y -> Nx.dot(y, x) end) end
      before = Memory.usage!(device: device).live_bytes
      Memory.reset_peak(device: device)
      result = ours(fun, [x], device: device)
      assert Memory.usage!(device: device).live_bytes - before == 4 * @elements
      assert Memory.usage!(device: device).peak_bytes - before <= 3 * 4 * @elements
      assert {Nx.to_number(result[1][1]), Nx.to_number(x[1][1])} == {1.0, 1.0}
    end

    test "of values that views share is freed with the last of them", %{device: device} do
      x = Nx.backend_copy(Nx.eye(512, type: :f32), {Backend, device: device})
      shapes = [{1, 512, 4, 128}, {1, 512, 512}]

      chain = fn x ->
        Enum.reduce(1..30, x, fn _, y ->
          shapes
          |> Enum.reduce(y, &Nx.reshape(&2, &1))
          |> Nx.dot(x)
          |> Nx.reshape({512, 512})
          |> Nx.add(x)
        end)
      end

      # Results are a value, a view of it, and a view of an argument.
      views = fn x ->
        Nx.dot(x, x) |> then(&{Nx.transpose(&1), &1, Nx.reshape(x, {2, 256, 512})})
      end

      before = Memory.usage!(device: device).live_bytes

      for fun <- [chain, views] do
        compiled = Nx.Defn.compile(fun, [x], compiler: ExCubecl, device: device)
        settled(before, device)
        Memory.reset_peak(device: device)
        results = tensors(compiled.(x))
        explained = Compiler.explain(fun, [x], device: device).peak
        assert Memory.usage!(device: device).peak_bytes - before == explained
        assert on_host(List.to_tuple(results)) == on_host(theirs(fun, [x]))
        # Each result has a handle of its own.
        [first | others] = Enum.reverse(results)
        Nx.backend_deallocate(first)
        for tensor <- [x | others], do: assert(Nx.to_number(tensor[1][1]) == 1.0)
      end
    end

    # A product, which has memory of its own, and what reads it last.
    @replacing [
      {"an operand twice",
       quote(do: fn x -> then(Nx.dot(x, x), &Nx.add(Nx.multiply(&1, &1), &1)) end), 1},
      {"with a broadcast", quote(do: fn x -> Nx.add(Nx.dot(x, x), x[0]) end), 1},
      {"functions, in another shape",
       quote(do: fn x -> x |> Nx.dot(x) |> Nx.reshape({1, 512, 512}) |> Nx.sin() end), 1},
      {"two results", quote(do: fn x -> then(Nx.dot(x, x), &{Nx.negate(&1), Nx.abs(&1)}) end), 2},
      {"an output", quote(do: fn x -> then(Nx.dot(x, x), &{&1, Nx.add(&1, 1)}) end), 2},
      {"an argument", quote(do: fn x -> {x, Nx.add(x, 1)} end), 1},
      {"in another order",
       quote(do: fn x -> then(Nx.dot(x, x), &Nx.add(&1, Nx.transpose(&1))) end), 2},
      {"a view that is read later",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           z = Nx.reshape(y, {256, 1024})
           Nx.dot(Nx.add(y, 1), Nx.reshape(Nx.dot(z, [1], z, [1]), {512, 128}))
         end
       ), 3},
      {"rows of one thread",
       quote(do: fn x -> x |> Nx.dot(x) |> ExCubecl.NxCompilerTest.Rows.centered() end), 1},
      {"rows of workgroups, with two results",
       quote(
         do: fn x ->
           y = x |> Nx.slice([0, 0], [64, 64]) |> Nx.dot(Nx.reshape(x, {64, 4096}))
           z = ExCubecl.NxCompilerTest.Rows.centered(y)
           {Nx.add(z, y), Nx.subtract(y, z)}
         end
       ), 2},
      {"columns",
       quote(do: fn x -> x |> Nx.dot(x) |> ExCubecl.NxCompilerTest.Rows.centered(0) end), 1},
      {"rows, also read in another order",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           Nx.add(ExCubecl.NxCompilerTest.Rows.centered(y), Nx.transpose(y))
         end
       ), 2},
      {"an epilogue of a window",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           x |> Nx.window_max({3, 3}, padding: :same) |> Nx.multiply(y) |> Nx.subtract(y)
         end
       ), 1},
      {"an epilogue of a window that reads the operand, too",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           y |> Nx.window_max({3, 3}, padding: :same) |> Nx.multiply(y)
         end
       ), 2},
      {"an epilogue of a convolution",
       quote(
         do: fn x ->
           y = x |> Nx.dot(x) |> Nx.reshape({2, 2, 256, 256})

           x
           |> Nx.reshape({2, 2, 256, 256})
           |> Nx.conv(Nx.iota({2, 2, 3, 3}, type: :f32), padding: :same)
           |> Nx.add(y)
           |> Nx.max(0)
         end
       ), 2},
      {"an epilogue of a product with two results",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           z = x |> Nx.slice([0, 0], [512, 20]) |> Nx.dot(Nx.slice(x, [0, 0], [20, 512]))
           {Nx.add(z, 1), Nx.subtract(y, z)}
         end
       ), 2},
      {"an epilogue of a reduction",
       quote(
         do: fn x ->
           y = Nx.dot(x, x)
           Nx.new_axis(x, 0) |> Nx.add(Nx.iota({3, 1, 1})) |> Nx.sum(axes: [0]) |> Nx.add(y)
         end
       ), 1}
    ]

    test "of an operand that nothing needs later is that of the result", %{device: device} do
      x =
        Nx.backend_copy(
          Nx.remainder(Nx.iota({512, 512}, type: :f32), 7),
          {Backend, device: device}
        )

      settled(before = Memory.usage!(device: device).live_bytes, device)

      for {name, fun, matrices} <- @replacing do
        {fun, []} = Code.eval_quoted(fun)
        compiled = Nx.Defn.compile(fun, [x], compiler: ExCubecl, device: device)
        expected = on_host(theirs(fun, [x]))
        settled(before, device)
        Memory.reset_peak(device: device)
        results = compiled.(x)
        peak = Memory.usage!(device: device).peak_bytes - before
        assert {name, peak <= matrices * 4 * @elements + 4096} == {name, true}
        assert {name, peak <= Compiler.explain(fun, [x], device: device).peak} == {name, true}
        assert {name, on_host(results)} == {name, expected}
      end

      assert Nx.to_number(x[0][3]) == 3.0
    end

    @working [
      sort: quote(do: &Nx.sort(&1, axis: 1)),
      sort_columns: quote(do: &Nx.sort(&1, axis: 0, direction: :desc)),
      sort_moved: quote(do: &Nx.sort(Nx.transpose(&1), axis: 1)),
      argsort: quote(do: &Nx.argsort(&1, axis: 1)),
      top_k: quote(do: &Nx.top_k(&1, k: 40)),
      cumulative: quote(do: &Nx.cumulative_sum(&1, axis: 1)),
      cumulative_reversed: quote(do: &Nx.cumulative_max(&1, axis: 0, reverse: true)),
      sum: quote(do: &Nx.sum(&1)),
      fused_sum: quote(do: &Nx.sum(Nx.exp(Nx.negate(&1)), axes: [1])),
      argmax: quote(do: &Nx.argmax(&1)),
      fft: quote(do: &Nx.fft/1),
      fft_of_any_length: quote(do: &Nx.fft(&1, length: 509)),
      conv:
        quote(do: &Nx.conv(Nx.reshape(&1, {16, 64, 16, 16}), Nx.iota({32, 64, 3, 3}, type: :f32))),
      dot: quote(do: &Nx.dot(&1, Nx.transpose(&1))),
      dot_of_long_rows:
        quote(do: &Nx.dot(Nx.reshape(&1, {4, 65_536}), [1], Nx.reshape(&1, {4, 65_536}), [1])),
      dot_of_vectors: quote(do: &Nx.dot(Nx.reshape(&1, {262_144}), Nx.reshape(&1, {262_144}))),
      fft2: quote(do: &Nx.fft2/1),
      fft2_of_any_lengths: quote(do: &Nx.fft2(&1, lengths: [131, 509])),
      ifft2: quote(do: &Nx.ifft2(Nx.as_type(&1, :c64))),
      rfft: quote(do: &ExCubecl.NxCompilerTest.real(:rfft, &1, [])),
      rfft_of_any_length: quote(do: &ExCubecl.NxCompilerTest.real(:rfft, &1, length: 509)),
      irfft: quote(do: &ExCubecl.NxCompilerTest.real(:irfft, Nx.as_type(&1, :c64), [])),
      lu: quote(do: &Nx.LinAlg.lu/1),
      lu_in_one_launch: quote(do: &Nx.LinAlg.lu(Nx.slice(&1, [0, 0], [128, 128]))),
      lu_of_doubles: quote(do: &Nx.LinAlg.lu(Nx.as_type(&1, :f64))),
      qr: quote(do: &Nx.LinAlg.qr(Nx.slice(&1, [0, 0], [100, 100]))),
      eigh:
        quote(
          do: fn x ->
            x = Nx.slice(x, [0, 0], [131, 131])
            Nx.LinAlg.eigh(Nx.add(x, Nx.transpose(x)))
          end
        ),
      svd: quote(do: &Nx.LinAlg.svd(Nx.slice(&1, [0, 0], [60, 41]))),
      svd_of_rows:
        quote(do: &Nx.LinAlg.svd(Nx.slice(&1, [0, 0], [40, 90]), full_matrices?: false)),
      cholesky:
        quote(
          do: &Nx.LinAlg.cholesky(Nx.add(Nx.dot(&1, [1], &1, [1]), Nx.multiply(9, Nx.eye(512))))
        ),
      # Nx before 0.12 takes the QR decomposition.
      solve:
        quote(
          do: fn x ->
            x = Nx.slice(x, [0, 0], [200, 200])
            Nx.LinAlg.solve(Nx.add(x, Nx.multiply(5000, Nx.eye(200))), x)
          end
        ),
      determinant: quote(do: &Nx.LinAlg.determinant/1),
      triangular_solve:
        quote(do: &Nx.LinAlg.triangular_solve(Nx.add(&1, Nx.multiply(5000, Nx.eye(512))), &1)),
      scattered: quote(do: &Nx.indexed_add(&1, Nx.tensor([[1, 1]]), Nx.tensor([1]))),
      complex: quote(do: &Nx.dot(Nx.complex(&1, &1), Nx.complex(&1, &1))),
      captured:
        quote(
          do: fn x ->
            Nx.add(x, Nx.Defn.Expr.tensor(Nx.iota({512, 512}, backend: Nx.BinaryBackend)))
          end
        ),
      then_more: quote(do: &Nx.add(Nx.dot(elem(Nx.LinAlg.lu(&1), 2), &1), 1))
    ]

    # Only later versions of Nx have these.
    def real(name, x, opts),
      do: if(function_exported?(Nx, name, 2), do: apply(Nx, name, [x, opts]), else: Nx.fft(x, []))

    test "of operands that make a kernel unusable is known before it is needed", %{device: device} do
      on_device = &Nx.backend_copy(&1, {Backend, device: device})
      x = on_device.(Nx.divide(Nx.iota({512, 512}, type: :f32), 300_000))

      rows = fn x ->
        shifted = Nx.subtract(x, Nx.reduce_max(x, axes: [1], keep_axes: true))
        Nx.add(shifted, Nx.sum(shifted, axes: [1], keep_axes: true))
      end

      cases = [
        # A power of 2 is a product on the backend, which has the last bits of it.
        {&Nx.multiply(Nx.cos(Nx.add(Nx.pow(Nx.sin(&1), &2), 1)), &1), [x, Nx.tensor(2)]},
        # All elements are one number.
        {rows, [on_device.(Nx.broadcast(Nx.tensor(3.0), {512, 512}))]},
        {&Nx.sum(Nx.multiply(&1, 2), axes: [0]), [on_device.(Nx.broadcast(1.0, {512, 512}))]}
      ]

      for {{fun, args}, at} <- Enum.with_index(cases) do
        compiled = Nx.Defn.compile(fun, args, compiler: ExCubecl, device: device)
        expected = on_host(apply(compiled, args))
        assert {at, expected} == {at, on_host(theirs(fun, args))}
        # The first call may change what the arguments themselves have on the device.
        {before, _} = ExCubecl.Case.settled(device)
        Memory.reset_peak(device: device)
        results = apply(compiled, args)
        peak = Memory.usage!(device: device).peak_bytes - before
        explained = Compiler.explain(fun, args, device: device).peak
        assert {at, peak, explained, peak <= explained + 4096} == {at, peak, explained, true}
        assert {at, on_host(results)} == {at, expected}
      end

      assert Nx.to_number(x[0][3]) > 0
    end

    test "of work is known before it is needed", %{device: device} do
      x =
        Nx.backend_copy(
          Nx.remainder(Nx.iota({512, 512}, type: :f32), 7),
          {Backend, device: device}
        )

      settled(before = Memory.usage!(device: device).live_bytes, device)

      # Decompositions are those of the device, which need more memory.
      ExCubecl.LinAlg.Device.Operands.force()

      for {name, fun} <- @working do
        {fun, []} = Code.eval_quoted(fun)
        compiled = Nx.Defn.compile(fun, [x], compiler: ExCubecl, device: device)
        # Kernels are compiled, and constants are on the device.
        compiled.(x)
        settled(before, device)
        Memory.reset_peak(device: device)
        results = tensors(compiled.(x))
        peak = Memory.usage!(device: device).peak_bytes - before
        explained = Compiler.explain(fun, [x], device: device).peak
        assert {name, explained, peak <= explained} == {name, explained, true}
        assert {name, peak >= results |> Enum.map(&Nx.byte_size/1) |> Enum.sum()} == {name, true}
      end
    end

    test "of a single element is not that of a result of another shape" do
      x = Nx.iota({100}, type: :f32)
      add = fn x -> Nx.multiply(Nx.add(Nx.sum(x), Nx.reduce_max(x, keep_axes: true)), 2) end
      Nx.default_backend({Backend, host_limit: 0})
      assert Nx.to_flat_list(Nx.Defn.jit(add, compiler: ExCubecl).(x)) == [10_098.0]
    end

    test "that a hook keeps is not that of a result", %{device: device} do
      x = Nx.backend_copy(Nx.eye(512, type: :f32), {Backend, device: device})
      test = self()

      fun = fn x ->
        x |> Nx.dot(x) |> Nx.Defn.Kernel.hook(&send(test, {:kept, &1})) |> Nx.add(1)
      end

      assert Nx.to_number(ours(fun, [x], device: device)[0][0]) == 2.0
      assert_receive {:kept, kept}
      assert Nx.to_number(kept[0][0]) == 1.0
    end

    test "of the state of a loop is given up round by round", %{device: device} do
      x = Nx.backend_copy(Nx.eye(512, type: :f32), {Backend, device: device})
      settled(before = Memory.usage!(device: device).live_bytes, device)

      for rounds <- [0, 1, 40] do
        fun = &__MODULE__.Loops.doubled(&1, Nx.tensor(rounds))
        compiled = Nx.Defn.compile(fun, [x], compiler: ExCubecl, device: device)
        settled(before, device)
        Memory.reset_peak(device: device)
        {result, constant} = compiled.(x)
        peak = Memory.usage!(device: device).peak_bytes - before
        assert peak <= 4 * @elements + 4096
        assert peak <= Compiler.explain(fun, [x], device: device).peak
        assert {Nx.to_number(result[3][3]), Nx.to_number(constant[3][3])} == {2.0 ** rounds, 1.0}
      end

      assert Nx.to_number(x[3][3]) == 1.0
    end

    # Collects garbage until the live bytes are those.
    defp settled(bytes, device) do
      ExCubecl.Case.until(fn ->
        :erlang.garbage_collect()
        Memory.usage!(device: device).live_bytes == bytes
      end)
    end

    test "of views in branches and loops", %{device: device} do
      x = Nx.backend_copy(large(), {Backend, device: device})
      before = Memory.usage!(device: device).live_bytes

      for n <- 0..3 do
        fun = &__MODULE__.Loops.views(&1, Nx.tensor(n))

        assert on_host(ours(fun, [x], device: device)) ==
                 on_host(theirs(fun, [Nx.backend_copy(x, Nx.BinaryBackend)]))

        settled(before, device)
        assert Memory.usage!(device: device).live_bytes == before
        assert Nx.to_number(x[1]) == 1.0
      end
    end

    test "that the limit of the device does not leave", %{device: device} do
      x = Nx.backend_copy(large(@elements), {Backend, device: device})
      fun = fn x -> Nx.dot(Nx.outer(x[0..1023], x[0..1023]), Nx.iota({1024}, type: :f32)) end
      assert ours(fun, [x], device: device).shape == {1024}
      {live, _} = ExCubecl.Case.settled(device)
      :ok = Memory.set_limit(live + 3 * 1024 * 1024, device: device)
      on_exit(fn -> :ok = Memory.set_limit(nil, device: device) end)
      error = assert_raise(Error, fn -> ours(fun, [x], device: device) end)
      assert error.reason == :out_of_memory
      assert error.details.requested >= 4 * 1024 * 1024
    end
  end

  describe "explanations" do
    test "name what later versions of Nx call blocks, which run on the device" do
      Nx.default_backend({Backend, host_limit: 0})
      template = Nx.template({16, 16}, :f32)

      for {name, fun} <- [
            take: &Nx.take(&1, Nx.tensor([1, 0])),
            cumulative_sum: &Nx.cumulative_sum/1,
            fft2: &Nx.fft2/1
          ] do
        explanation = Compiler.explain(fun, [template])
        assert {name, explanation.fallbacks} == {name, []}
        assert Enum.any?(explanation.steps, &(&1.text =~ "#{name} f32[16][16]"))
      end
    end

    test "launch nothing, compile nothing, and need no memory" do
      fun = fn x ->
        Nx.sum(Nx.sort(Nx.multiply(x, Nx.exp(Nx.dot(x, Nx.iota({999, 999}))))), axes: [1])
      end

      device = ExCubecl.default_device!()
      before = {Memory.usage!(device: device).live_bytes, ExCubecl.Kernel.cache!().misses}
      :erlang.garbage_collect()
      Memory.reset_peak(device: device)
      explanation = Compiler.explain(fun, [Nx.template({301, 999}, :f32)])
      assert explanation.launches > 2
      assert explanation.peak >= 4 * 999 * 999
      {live, misses} = before
      assert Memory.usage!(device: device).peak_bytes <= live
      assert ExCubecl.Kernel.cache!().misses == misses
    end

    test "have bounds of the launches that numbers decide" do
      x = Nx.template({100}, :f32)
      exact = Compiler.explain(&Nx.sum(Nx.sin(&1)), [x])
      assert exact.bounds == {exact.launches, exact.launches}
      assert inspect(exact) =~ ~r/steps?, \d+ launches, /

      branches = fn x, y -> Definitions.either(Nx.greater(Nx.sum(x), 0), y) end
      chosen = Compiler.explain(branches, [x, Nx.template({40, 50}, :f32)])
      {at_least, at_most} = chosen.bounds
      assert at_least < at_most and at_most <= chosen.launches
      assert inspect(chosen) =~ "(#{at_least} to #{at_most} in a run)"

      loop = Compiler.explain(&Definitions.count_up/1, [Nx.template({100}, :f32)])
      assert {_at_least, :infinity} = loop.bounds
      assert inspect(loop) =~ "at least"
    end

    test "have the steps, the launches, the memory, and what falls back" do
      fun = fn x, y ->
        pred = Nx.greater(Nx.sum(y), 0)
        product = Nx.dot(x, Nx.transpose(x))
        chosen = Definitions.chosen(pred, product)

        factor = Nx.LinAlg.cholesky(Nx.as_type(product, :c64))
        {chosen, factor, Definitions.count_up(Nx.reshape(y, {64}))}
      end

      templates = [Nx.template({128, 64}, :f32), Nx.template({8, 8}, :f32)]
      explanation = Compiler.explain(fun, templates)
      # Later versions of Nx have it as other operations, which the device can run.
      later? = function_exported?(Backend, :block, 4)
      assert explanation.fallbacks == if(later?, do: [], else: [cholesky: {:c, 64}])
      assert explanation.device == ExCubecl.default_device!()
      # The product of matrices and the complex ones.
      assert explanation.peak >= 4 * 128 * 128 + 8 * 128 * 128
      kinds = for step <- explanation.steps, do: step.kind
      expected = [:condition, :loop, :operation] ++ if(later?, do: [], else: [:host])
      for kind <- expected, do: assert(kind in kinds)
      assert Enum.any?(explanation.steps, &(&1.text =~ "dot" and &1.result == "f32[128][128]"))

      for text <- [inspect(explanation), to_string(explanation)],
          part <- [
            "peak",
            "dot f32[128][64] f32[64][128]",
            "while",
            "cond",
            if(later?, do: "launches", else: "cholesky of c64")
          ],
          do: assert(text =~ part)

      chart = Compiler.Explanation.Chart.chart(explanation)
      assert ExCubecl.Memory.Chart.svg!(chart) =~ "dot f32[128][64]"
      assert_raise Error, ~r/nothing/, fn -> Compiler.explain(fun, templates, nothing: 1) end
      assert_raise Error, ~r/args :x/, fn -> Compiler.explain(fun, :x) end
      assert_raise Error, ~r/function of 1 arguments/, fn -> Compiler.explain(fun, [1]) end
      assert_raise Error, ~r/function of 1 arguments/, fn -> Compiler.explain(:fun, [1]) end
    end
  end

  describe "constants" do
    @integers for kind <- [:s, :u], bits <- [8, 16, 32, 64], do: {kind, bits}
    @numbers [0, 1, -1, 7, 255, 2 ** 31, -(2 ** 31), 2 ** 63 - 1, 2 ** 64 - 1]

    test "of integers are those of Nx.BinaryBackend" do
      for name <- [:add, :subtract, :multiply, :bitwise_and, :bitwise_or, :bitwise_xor],
          type <- @integers do
        [a, b] = for _ <- 1..2, do: {Enum.random(@integers), Enum.random(@numbers)}

        [out | operands] =
          for {type, _} <- [{type, 0}, a, b], do: %{Nx.template({}, type) | data: nil}

        stubs =
          for {tensor, {_, number}} <- Enum.zip(operands, [a, b]),
              do: %{
                tensor
                | data: %Nx.Defn.Expr{id: 0, op: :constant, args: [number], context: nil}
              }

        numbers =
          for {tensor, {_, number}} <- Enum.zip(operands, [a, b]),
              do: Nx.BinaryBackend.constant(tensor, number, [])

        expected = Nx.BinaryBackend |> apply(name, [out | numbers]) |> Nx.to_number()

        assert {name, type, a, b, Compiler.Constants.fold(name, stubs, out, %{})} ==
                 {name, type, a, b, {:ok, expected}}
      end
    end

    test "of a tensor that the expression closed over" do
      for type <- @integers do
        numbers = Nx.tensor([[1, 2, 3], [4, 5, 6]], type: type, backend: Nx.BinaryBackend)

        for {row, column, lengths} <- [{1, 2, {1, 1}}, {5, 0, {1, 1}}, {0, 9, {1, 1}}] do
          fun =
            &Nx.add(
              &1,
              Nx.slice(Nx.Defn.Expr.tensor(numbers), [row, column], Tuple.to_list(lengths))
            )

          assert_same(fun, [large(10)])
        end
      end
    end
  end

  describe "telemetry" do
    test "of a compilation and of runs" do
      names = for name <- [:defn_compile, :defn_run], do: [:ex_cubecl, name]
      handler = ["compiler", names, &__MODULE__.handle/4, self()]
      :ok = apply(:telemetry, :attach_many, handler)
      for _ <- 1..2, do: ours(&Nx.tan(Nx.add(&1, 12_345)), [large(21)])
      apply(:telemetry, :detach, ["compiler"])
      assert_receive {:defn_compile, %{duration: _}, %{device: _, nodes: 4}}
      for _ <- 1..2, do: assert_receive({:defn_run, %{duration: _}, %{device: _, steps: _}})
      refute_received {:defn_compile, _, _}
    end

    def handle([_, name], measured, metadata, test), do: send(test, {name, measured, metadata})
  end
end
