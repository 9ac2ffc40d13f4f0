defmodule ExCubecl.Native do
  @moduledoc false
  # The stubs of the NIF library, one section for each module, with no logic but loading the library and waiting for
  # replies. A stub runs only if the library is not loaded; `ExCubecl.Error.from_native/1` converts that to an error.

  import ExCubecl.Native.Call

  # The library cannot be replaced while buffers are alive, because their code and devices are in the old
  # library. So loading this module again in the same VM is refused: the loaded module stays in use, with its
  # buffers. A new library takes effect when the VM is restarted.
  @on_load :load

  @load_error {__MODULE__, :load_error}

  # Without the library the module loads all the same: callers then get an error with the cause instead of an
  # undefined function.
  @doc false
  def load do
    path = Path.rootname(library_path())

    case :erlang.load_nif(String.to_charlist(path), 0) do
      :ok -> :ok
      {:error, {:upgrade, _}} -> :keep_the_library_that_buffers_live_in
      {:error, {_reason, text}} -> :persistent_term.put(@load_error, to_string(text))
    end
  end

  @doc false
  def library_path do
    # An empty variable counts as unset, as it does for the compiler in mix.exs.
    case System.get_env("EX_CUBECL_NIF") do
      path when path in [nil, ""] -> Path.join(priv_dir(), "native/ex_cubecl#{extension()}")
      path -> path
    end
  end

  @doc false
  # Why the library could not be loaded.
  def load_error, do: :persistent_term.get(@load_error, "it was not loaded")

  defp priv_dir do
    case :code.priv_dir(:ex_cubecl) do
      {:error, :bad_name} -> Path.expand("priv")
      dir -> to_string(dir)
    end
  end

  defp extension, do: if(match?({:win32, _}, :os.type()), do: ".dll", else: ".so")

  # Device
  def version, do: missing()
  call(device_list())
  call(device_default())
  def device_list_open, do: missing()
  call(device_open(on, id))
  call(device_remove(id))
  call(device_reset(id))
  call(device_synchronize(id))

  # Memory
  call(memory_usage(id))
  call(memory_total(id))
  call(memory_set_limit(id, bytes))
  def memory_set_initial_limit(_id, _bytes), do: missing()
  call(memory_reset_peak(id))
  call(memory_trim(id))
  call(memory_reclaim(id))
  call(memory_report(id, max))
  call(memory_map(id, max))
  call(memory_owners(id))
  call(memory_live_bytes(id))
  call(memory_count_failure(id))
  def memory_watch_frees(_pid), do: missing()
  def memory_acknowledge_free, do: missing()

  # Buffer
  call(buffer_from_list(id, dtype, dims, list, options))
  call(buffer_from_binary(id, dtype, dims, binary, options, watcher))
  def buffer_try_create(_id, _dtype, _dims, _data, _options), do: missing()
  call(buffer_empty(id, dtype, dims, options))
  call(buffer_iota(id, dtype, dims, options))
  call(buffer_allocate(ref, may_allocate))
  call(buffer_fill(ref, value, may_allocate))
  call(buffer_copy_from_pointer(ref, address, may_allocate))
  call(buffer_read(ref, watcher))
  call(buffer_read_part(ref, offset, count))
  call(buffer_read_all(refs))
  call(buffer_elements(ref, dims))
  call(buffer_preview(ref, max))
  call(buffer_write(ref, offset, binary, watcher, may_allocate))
  call(buffer_write_list(ref, offset, dims, list, may_allocate))
  def buffer_view(_ref, _offset, _count), do: missing()
  def buffer_slice_bytes(_ref, _offset, _len), do: missing()
  def buffer_bitcast(_ref, _dtype), do: missing()
  def buffer_clone(_ref), do: missing()
  def buffer_detach(_ref), do: missing()
  call(buffer_duplicate(ref, id, dims, options, watcher))
  call(buffer_convert(ref, dtype, dims, options))
  call(buffer_copy(source, target, may_allocate))
  try_call(buffer_release(ref))
  call(buffer_synchronize(ref))
  call(buffer_pointer(ref))
  def buffer_overlap(_a, _b), do: missing()
  def buffer_id(_ref), do: missing()
  def buffer_storage_id(_ref), do: missing()
  def buffer_total_size(_ref), do: missing()
  def buffer_allocated(_ref), do: missing()
  def buffer_ref_count(_ref), do: missing()

  # Pool
  call(pool_new(id, dtype, dims, max, options))
  def pool_set_server(_pool), do: missing()
  def pool_try_checkout(_pid, _options), do: missing()
  call(pool_checkout(pid, holder, options))
  try_call(pool_checkin(pid, ref))
  def pool_set_waiting(_pid, _waiting), do: missing()
  def pool_count_wait(_pid), do: missing()
  def pool_stats(_pid), do: missing()
  try_call(pool_get_buffer(id, dtype, dims, max, options))
  try_call(pool_return_buffer(ref))
  def pool_shared_stats, do: missing()

  # Arena
  call(arena_new(id, bytes, growth, options))
  call(arena_per_process(id, bytes, max, extendable, options))
  def arena_try_alloc(_arena, _dtype, _dims), do: missing()
  call(arena_alloc(arena, dtype, dims))
  try_call(arena_drop(arena, tensors))
  call(arena_reshape(arena, dtype, dims, offset))
  call(arena_reset(arena))
  call(arena_release(arena))
  call(arena_free(arena))
  call(arena_used(arena))
  call(arena_capacity(arena))
  call(arena_peak(arena))
  def arena_extendable(_arena), do: missing()
  def arena_set_extendable(_arena, _extendable), do: missing()

  # Kernel
  def kernel_new(_program), do: missing()
  def kernel_count, do: missing()
  try_call(kernel_map(kernel, id, inputs, scalars, dims, options))
  try_call(kernel_run(step))
  call(kernel_run_all(steps))
  call(kernel_matmul(left, right, lengths, dims, options))
  call(kernel_profile_start(id))
  call(kernel_profile_stop(id, token))
  def source_new(_text, _entry, _workgroup_size), do: missing()
  call(source_run(source, buffers, groups))
  call(kernel_compile(kernel, id))

  # Linear algebra on the host
  call(linear_run(operation, operands, count, first, dtype))

  # Replicated
  call(replicated_write(refs, dtype, dims, data, split))

  # Transfer
  call(buffer_read_async(ref, template, offset, count))
  def transfer_new, do: missing()
  def transfer_wanted(_transfer), do: missing()
  def transfer_claim(_transfer), do: missing()
  def transfer_cancel(_transfer), do: missing()

  # Remote
  def remote_handle(_releaser, _name), do: missing()
  def remote_name(_ref), do: missing()

  # Lists
  def list_to_binary(_dtype, _dims, _list), do: missing()
  def binary_to_list(_binary, _dtype, _dims), do: missing()

  @doc "A long list is built on a dirty scheduler, not on the thread on which its bytes arrive."
  def buffer_to_list(ref, dims) do
    with {:ok, {:bytes, bytes, dtype}} <- buffer_elements(ref, dims),
         do: binary_to_list(bytes, dtype, dims)
  end

  defp missing, do: :erlang.nif_error(:nif_not_loaded)
end
