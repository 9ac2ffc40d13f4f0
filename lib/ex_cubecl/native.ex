defmodule ExCubecl.Native do
  @moduledoc false
  # The stubs of the NIF library, one section a module, no logic beyond loading it. A stub that
  # runs means that the library is not there; `ExCubecl.Error.from_native/1` makes an error of it.

  # A library cannot be exchanged under live buffers, whose code and devices are in the old one. So a
  # module that is loaded again in the same VM is refused: the one that is there goes on, with the
  # buffers it has. A new library takes effect when the VM starts again.
  @on_load :load

  @doc false
  def load do
    path = Path.rootname(library_path())

    case :erlang.load_nif(String.to_charlist(path), 0) do
      :ok -> :ok
      {:error, {:upgrade, _}} -> :keep_the_library_that_buffers_live_in
      {:error, {_reason, text}} -> miss(text)
    end
  end

  # Without its library the module loads all the same: its callers get an error that says what is
  # missing instead of an undefined function.
  defp miss(text), do: :persistent_term.put({__MODULE__, :fault}, to_string(text))

  @doc false
  def library_path do
    # An empty variable counts as unset, as it does for the compiler in mix.exs.
    case System.get_env("EX_CUBECL_NIF") do
      path when path in [nil, ""] -> Path.join(priv_dir(), "native/ex_cubecl#{extension()}")
      path -> path
    end
  end

  @doc false
  def fault, do: :persistent_term.get({__MODULE__, :fault}, "it was not loaded")

  defp priv_dir do
    case :code.priv_dir(:ex_cubecl) do
      {:error, :bad_name} -> Path.expand("priv")
      dir -> to_string(dir)
    end
  end

  defp extension, do: if(match?({:win32, _}, :os.type()), do: ".dll", else: ".so")

  # Device
  def version, do: missing()
  def device_list, do: missing()
  def device_default, do: missing()
  def device_add(_on, _id), do: missing()
  def device_open(_id), do: missing()
  def device_remove(_id), do: missing()
  def device_reset(_id), do: missing()
  def device_synchronize(_id), do: missing()

  # Memory
  def memory_usage(_id), do: missing()
  def memory_total(_id), do: missing()
  def memory_set_limit(_id, _bytes), do: missing()
  def memory_first_limit(_id, _bytes), do: missing()
  def memory_reset_peak(_id), do: missing()
  def memory_trim(_id), do: missing()
  def memory_reclaim(_id), do: missing()
  def memory_report(_id, _most), do: missing()
  def memory_map(_id, _most), do: missing()
  def memory_open, do: missing()
  def memory_owners(_id), do: missing()
  def memory_live(_id), do: missing()
  def memory_failed(_id), do: missing()
  def memory_take(_id, _dtype, _dims, _max, _note), do: missing()
  def memory_get(_id, _dtype, _dims, _max, _note), do: missing()
  def memory_return(_ref), do: missing()
  def memory_return_wait(_ref), do: missing()
  def memory_watch(_pid), do: missing()
  def memory_stats, do: missing()

  # Buffer
  def buffer_from_list(_id, _dtype, _dims, _list, _note), do: missing()
  def buffer_from_binary(_id, _dtype, _dims, _binary, _note, _watcher), do: missing()
  def buffer_from_small(_id, _dtype, _dims, _data, _note), do: missing()
  def buffer_empty(_id, _dtype, _dims, _note), do: missing()
  def buffer_iota(_id, _dtype, _dims, _note), do: missing()
  def buffer_allocate(_ref), do: missing()
  def buffer_fill(_ref, _value), do: missing()
  def buffer_read(_ref, _watcher), do: missing()
  def buffer_read_part(_ref, _offset, _count), do: missing()
  def buffer_read_all(_refs), do: missing()
  def buffer_to_list(_ref, _dims), do: missing()
  def buffer_preview(_ref, _most), do: missing()
  def buffer_write(_ref, _offset, _binary, _watcher), do: missing()
  def buffer_write_list(_ref, _offset, _dims, _list), do: missing()
  def buffer_view(_ref, _offset, _count), do: missing()
  def buffer_slice_bytes(_ref, _offset, _len), do: missing()
  def buffer_clone(_ref), do: missing()
  def buffer_detach(_ref), do: missing()
  def buffer_duplicate(_ref, _id, _dims, _note, _watcher), do: missing()
  def buffer_convert(_ref, _dtype, _dims, _note), do: missing()
  def buffer_copy(_source, _target), do: missing()
  def buffer_synchronize(_ref), do: missing()
  def buffer_pointer(_ref), do: missing()
  def buffer_overlap(_a, _b), do: missing()
  def buffer_id(_ref), do: missing()
  def buffer_storage_id(_ref), do: missing()
  def buffer_total_size(_ref), do: missing()
  def buffer_allocated(_ref), do: missing()
  def buffer_missing(_ref), do: missing()
  def buffer_ref_count(_ref), do: missing()

  # Pool
  def pool_open(_id, _dtype, _dims, _max, _note), do: missing()
  def pool_run(_pool), do: missing()
  def pool_take(_pid, _note), do: missing()
  def pool_check_out(_pid, _holder, _note), do: missing()
  def pool_check_in(_pid, _ref), do: missing()
  def pool_check_in_wait(_pid, _ref), do: missing()
  def pool_set_waiting(_pid, _waiting), do: missing()
  def pool_count_wait(_pid), do: missing()
  def pool_stats(_pid), do: missing()

  # Arena
  def arena_new(_id, _bytes, _growth, _note), do: missing()
  def arena_per_process(_id, _bytes, _max, _extendable, _note), do: missing()
  def arena_alloc(_arena, _dtype, _dims), do: missing()
  def arena_alloc_wait(_arena, _dtype, _dims), do: missing()
  def arena_drop(_arena, _tensors), do: missing()
  def arena_drop_wait(_arena, _tensors), do: missing()
  def arena_window(_arena, _dtype, _dims, _offset), do: missing()
  def arena_reset(_arena), do: missing()
  def arena_release(_arena), do: missing()
  def arena_free(_arena), do: missing()
  def arena_used(_arena), do: missing()
  def arena_capacity(_arena), do: missing()
  def arena_peak(_arena), do: missing()
  def arena_extendable(_arena), do: missing()
  def arena_set_extendable(_arena, _extendable), do: missing()

  # Kernel
  def kernel_new(_program), do: missing()
  def kernel_count, do: missing()
  def kernel_map(_kernel, _id, _inputs, _scalars, _dims, _note), do: missing()
  def kernel_map_now(_kernel, _id, _inputs, _scalars, _dims, _note), do: missing()
  def kernel_run(_steps), do: missing()
  def kernel_run_now(_step), do: missing()
  def kernel_matmul(_left, _right, _lengths, _dims, _note), do: missing()
  def kernel_profile_start(_id), do: missing()
  def kernel_profile_stop(_id, _token), do: missing()
  def source_new(_text, _entry, _threads), do: missing()
  def source_run(_source, _buffers, _groups), do: missing()
  def kernel_compile(_kernel, _id), do: missing()

  # Replicated
  def replicated_write(_refs, _dtype, _dims, _data, _split), do: missing()

  # Transfer
  def buffer_read_async(_ref, _template, _offset, _count), do: missing()
  def transfer_new, do: missing()
  def transfer_wanted(_transfer), do: missing()
  def transfer_claim(_transfer), do: missing()
  def transfer_cancel(_transfer), do: missing()

  # Remote
  def remote_handle(_releaser, _name), do: missing()
  def remote_key(_ref), do: missing()
  def list_to_binary(_dtype, _dims, _list), do: missing()
  def binary_to_list(_binary, _dtype, _dims), do: missing()

  defp missing, do: :erlang.nif_error(:nif_not_loaded)
end
