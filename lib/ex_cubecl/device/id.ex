defmodule ExCubecl.Device.Id do
  @moduledoc false
  # The ids of the devices of this node: which exist, which one is the default, and what a caller's term names.

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Cluster.Location
  alias ExCubecl.Native.Waiting

  @type t :: {atom, non_neg_integer}

  @runtimes [:vulkan, :metal, :dx12, :cuda]
  @known {__MODULE__, :known}
  @best {__MODULE__, :best}
  @default {__MODULE__, :default}
  @traits {__MODULE__, :traits}

  # No device has a longer name. Splitting a name of megabytes would block the scheduler.
  @longest_name 32

  @doc "Whether a term has the form of an id."
  defguard is_id(term)
           when is_tuple(term) and tuple_size(term) == 2 and elem(term, 0) in @runtimes and
                  is_integer(elem(term, 1)) and elem(term, 1) in 0..0xFFFF_FFFF

  @doc "The descriptions of all devices of this node."
  @spec list() :: {:ok, [map]} | {:error, Error.t()}
  def list do
    with {:ok, found} <- find(&Native.device_list/0),
         do: {:ok, Enum.map(found, &describe/1)}
  end

  defp find(call),
    do: Waiting.show("looking for devices", nil, fn -> Error.from_native(call) end)

  @doc "Adds the runtime to the description that the native side has sent."
  def describe(%{id: {runtime, _}} = found), do: Map.put(found, :runtime, runtime)

  @doc "The id that a device in any of its forms stands for; `nil` is the default device. It need not exist."
  @spec parse(term) :: {:ok, t} | {:error, Error.t()}
  def parse(nil), do: default()
  def parse(id) when is_id(id), do: {:ok, id}

  # A description, as of `list/0`.
  def parse(%{id: id, runtime: _}) when id != nil, do: parse(id)

  def parse({_, _} = device) do
    case Location.locate(device) do
      {nil, ^device} -> unknown(device)
      {nil, device} -> parse(device)
      {_node, _} -> Error.new(:unsupported, operation: :remote_device, device: device)
    end
  end

  def parse(name) when is_binary(name) and byte_size(name) <= @longest_name do
    with [runtime, index] <- String.split(name, ":"),
         runtime when runtime != nil <- Enum.find(@runtimes, &(Atom.to_string(&1) == runtime)),
         {index, ""} <- Integer.parse(index) do
      parse({runtime, index})
    else
      _ -> unknown(name)
    end
  end

  def parse(other), do: unknown(other)

  @doc "The id of a device that exists."
  @spec existing(term) :: {:ok, t} | {:error, Error.t()}
  def existing(named) do
    with {:ok, id} <- parse(named), {:ok, ids} <- known() do
      if id in ids, do: {:ok, id}, else: Error.new(:unknown_device, device: id, known: ids)
    end
  end

  def unknown(device) do
    with {:ok, devices} <- list(),
         do: Error.new(:unknown_device, device: device, known: Enum.map(devices, & &1.id))
  end

  @doc "The ids of all devices, from the cache if they were listed before."
  @spec known() :: {:ok, [t]} | {:error, Error.t()}
  def known, do: cached(@known, fn -> with({:ok, all} <- list(), do: {:ok, ids(all)}) end)

  defp ids(devices), do: Enum.map(devices, & &1.id)

  @doc "The types that a device computes, from the cache if it was asked before."
  @spec dtypes(t) :: {:ok, [atom]} | {:error, Error.t()}
  def dtypes(id), do: with({:ok, %{dtypes: dtypes}} <- traits(id), do: {:ok, dtypes})

  @doc "How many buffers a kernel can have on a device, from the cache if it was asked before."
  @spec max_buffers(t) :: {:ok, pos_integer} | {:error, Error.t()}
  def max_buffers(id), do: with({:ok, %{max_buffers: most}} <- traits(id), do: {:ok, most})

  @doc "Whether a device is the CPU, from the cache if it was asked before; false for one that does not exist."
  @spec cpu?(t) :: boolean
  def cpu?(id), do: match?({:ok, %{kind: :cpu}}, traits(id))

  defp traits(id) do
    all = fn ->
      with {:ok, all} <- list(),
           do: {:ok, Map.new(all, &{&1.id, Map.take(&1, [:dtypes, :kind, :max_buffers])})}
    end

    case cached(@traits, all) do
      {:ok, %{^id => traits}} -> {:ok, traits}
      {:ok, _} -> unknown(id)
      error -> error
    end
  end

  @doc "Drops what the cache knows of the devices; the next call looks it up again."
  def forget do
    for key <- [@known, @best, @default, @traits], do: :persistent_term.erase(key)
    :ok
  end

  @doc "The default device, from the cache if it was looked up before."
  @spec default() :: {:ok, t} | {:error, Error.t()}
  def default do
    case :persistent_term.get(@default, nil) do
      nil -> find_default()
      id -> {:ok, id}
    end
  end

  @doc "Looks the default device up in the environment and the configuration, for this call and the next ones of `default/0`."
  @spec find_default() :: {:ok, t} | {:error, Error.t()}
  def find_default do
    case named_default() do
      {:ok, id} ->
        :persistent_term.put(@default, id)
        {:ok, id}

      {:error, error} ->
        :persistent_term.erase(@default)
        {:error, error}
    end
  end

  defp named_default do
    case System.get_env("EX_CUBECL_DEVICE") do
      named when named in [nil, ""] ->
        configured(Application.get_env(:ex_cubecl, :default_device))

      named ->
        named_by(existing(named), "EX_CUBECL_DEVICE")
    end
  end

  # Hardware does not change while a VM runs.
  defp configured(nil),
    do: cached(@best, fn -> find(&Native.device_default/0) end)

  defp configured(named),
    do: named_by(existing(named), "`config :ex_cubecl, default_device: ...`")

  # The caller named no device, so the error reports where the name came from.
  defp named_by({:error, %{reason: reason} = error}, source)
       when reason in [:unknown_device, :unsupported],
       do: {:error, %{error | details: Map.put(error.details, :source, source)}}

  defp named_by(result, _source), do: result

  # The first successful result is kept.
  defp cached(key, find) do
    with nil <- :persistent_term.get(key, nil),
         {:ok, found} <- find.() do
      :persistent_term.put(key, found)
      {:ok, found}
    else
      {:error, error} -> {:error, error}
      found -> {:ok, found}
    end
  end
end
