defmodule ExCubecl.Calls do
  @moduledoc false
  # Every public function that takes a buffer, with valid other arguments. The tests of misuse use this table;
  # `none/0` lists the functions that take no buffer.

  alias ExCubecl.Buffer

  @doc "Functions that return a tuple or `:ok` and use more than the struct."
  def touching(other) do
    [
      ensure_allocated: &Buffer.ensure_allocated/1,
      view: &Buffer.view(&1, 0, [1]),
      slice_bytes: &Buffer.slice_bytes(&1, 0, 1),
      reshape: &Buffer.reshape(&1, [1]),
      bitcast: &Buffer.bitcast(&1, :s32),
      clone: &Buffer.clone/1,
      duplicate: &Buffer.duplicate/1,
      convert: &Buffer.convert(&1, :f64),
      transfer: &Buffer.transfer(&1, nil),
      write: &Buffer.write(&1, [1]),
      write: &Buffer.write(&1, [1], offset: 0),
      fill: &Buffer.fill(&1, 1),
      copy_from_pointer: &Buffer.copy_from_pointer(&1, 4_096),
      copy: &Buffer.copy(&1, other),
      run_kernel: &ExCubecl.run_kernel("relu", [&1], other),
      run_kernel: &ExCubecl.run_kernel("relu", [other], &1),
      copy: &Buffer.copy(other, &1),
      read: &Buffer.read/1,
      read_part: &Buffer.read_part(&1, 0, 1),
      read_all: &Buffer.read_all([other, &1]),
      to_list: &Buffer.to_list/1,
      to_flat_list: &Buffer.to_flat_list/1,
      item: &Buffer.item/1,
      read_async: &Buffer.read_async/1,
      synchronize: &Buffer.synchronize/1,
      pointer: &Buffer.pointer/1,
      read: &ExCubecl.read/1,
      to_list: &ExCubecl.to_list/1,
      to_flat_list: &ExCubecl.to_flat_list/1,
      item: &ExCubecl.item/1
    ]
  end

  @doc "Functions that use only the struct."
  def pure do
    [
      shape: &Buffer.shape/1,
      dtype: &Buffer.dtype/1,
      size: &Buffer.size/1,
      device: &Buffer.device/1,
      check: &Buffer.check/1,
      check_all: &Buffer.check_all([&1]),
      shape: &ExCubecl.shape/1,
      dtype: &ExCubecl.dtype/1,
      size: &ExCubecl.size/1
    ]
  end

  @doc "Functions that return a tuple and use the handle, but not its memory."
  def identity do
    [
      id: &Buffer.id/1,
      storage_id: &Buffer.storage_id/1,
      total_size: &Buffer.total_size/1,
      ref_count: &Buffer.ref_count/1
    ]
  end

  @doc "Predicates, which return a boolean and raise on errors."
  def predicates(other) do
    [
      allocated?: &Buffer.allocated?/1,
      same_storage?: &Buffer.same_storage?(&1, other),
      same_storage?: &Buffer.same_storage?(other, &1),
      overlap?: &Buffer.overlap?(&1, other),
      overlap?: &Buffer.overlap?(other, &1)
    ]
  end

  @doc "Functions of other modules, which take buffers of this node only."
  def elsewhere(other) do
    alias ExCubecl.{Arena, Batch, Kernel, Pool, Random}

    [
      source: &Kernel.run(wgsl(), [&1], groups: 1),
      submit: &Batch.submit(Batch.fill(Batch.new(), &1, 1)),
      shuffle: &Random.shuffle({1, 2}, &1),
      choice: &Random.choice({1, 2}, &1),
      view: &ExCubecl.View.of/1,
      checkin: &Pool.checkin(pool(), &1),
      return_buffer: &Pool.return_buffer/1,
      drop: &Arena.drop(Arena.new!(100), [&1, other]),
      detach: &Arena.detach/1
    ]
  end

  @doc "Functions of other modules, which run on the node of their buffers, and refuse buffers of several nodes."
  def placed(other) do
    alias ExCubecl.{Kernel, Ops, Replicated}
    require Kernel

    [
      run: &Kernel.run(Kernel.kernel(fn x -> x + 1 end), [&1]),
      into: &Kernel.run(Kernel.kernel(fn x -> x + 1 end), [other], into: &1),
      add: &Ops.add(&1, other),
      add: &Ops.add(other, &1),
      matmul: &Ops.matmul(&1, &1),
      sum: &Ops.sum(&1),
      argmax: &Ops.argmax(&1),
      sort: &Ops.sort(&1),
      argsort: &Ops.argsort(&1),
      top_k: &Ops.top_k(&1, 1),
      unique: &Ops.unique(&1),
      transpose: &Ops.transpose(&1),
      gather: &Ops.gather(other, &1),
      gather_nd: &Ops.gather_nd(&1, other),
      indexed_put: &Ops.indexed_put(&1, other, other),
      indexed_add: &Ops.indexed_add(&1, other, other),
      one_hot: &Ops.one_hot(&1, 2),
      concatenate: &Ops.concatenate([other, &1]),
      cumulative_sum: &Ops.cumulative_sum(&1),
      broadcast_to: &Ops.broadcast_to(&1, [2, 4]),
      window_sum: &Ops.window_sum(&1, [1]),
      window_scatter_max: &Ops.window_scatter_max(&1, &1, 0, [1]),
      reduce: &Ops.reduce(&1, 0, Kernel.kernel(fn x, acc -> x + acc end)),
      write:
        &Replicated.write(%Replicated{buffers: [&1], shape: [4], dtype: :u8, shards: false}, [
          1,
          2,
          3,
          4
        ])
    ]
  end

  defp wgsl do
    ExCubecl.Kernel.source!(
      wgsl: """
      @group(0) @binding(0) var<storage, read_write> x: array<u32>;
      @compute @workgroup_size(1) fn main() { x[0] = 1u; }
      """
    )
  end

  defp pool do
    {:ok, pool} = ExCubecl.Pool.start_link(size: 4)
    pool
  end

  @doc "The error of each call with a handle: `{name, reason, message}`. Runs on the node of the handle."
  def said(handle) do
    other = ExCubecl.buffer!([1, 2, 3, 4], [4], :u8)

    for {name, call} <-
          touching(other) ++ identity() ++ elsewhere(other) ++ placed(other) ++ predicates(other) do
      try do
        call.(handle)
      rescue
        error in ExCubecl.Error -> {name, error.reason, Exception.message(error)}
      else
        {:error, error} -> {name, error.reason, Exception.message(error)}
        other -> {name, :went_well, other}
      end
    end
  end

  @doc "Functions of the two modules that take no buffer, or accept any term."
  def none do
    ~w(buffer new empty zeros full iota await fetch devices default_device device_count device_info
       memory_info available? supported_dtypes version kernels __struct__)a
  end
end
