defmodule ExCubecl.Data.Writer do
  @moduledoc false
  # Writes a file under a temporary name beside its path, and renames it when it is complete: a failed write changes no file.

  alias ExCubecl.Data.Reader
  alias ExCubecl.Error

  @enforce_keys [:io, :path]
  defstruct @enforce_keys

  @type t :: %__MODULE__{io: :file.fd(), path: Path.t()}

  @doc "Writes a file by `fun`, which returns `:ok` or an error."
  @spec create(Path.t(), (t -> :ok | {:error, Error.t()})) :: :ok | {:error, Error.t()}
  def create(path, fun) do
    with {:ok, path} <- Reader.path(path),
         temporary = "#{path}.#{System.pid()}.#{System.unique_integer([:positive])}.tmp",
         options = [:write, :exclusive, :raw, :binary],
         {:ok, io} <- Reader.posix(:file.open(temporary, options), :write, path) do
      result =
        try do
          fun.(%__MODULE__{io: io, path: path})
        after
          :file.close(io)
        end

      finish(result, temporary, path)
    end
  end

  defp finish(:ok, temporary, path) do
    with {:error, _} = error <- Reader.posix(:file.rename(temporary, path), :write, path) do
      :file.delete(temporary)
      error
    end
  end

  defp finish(error, temporary, _path) do
    :file.delete(temporary)
    error
  end

  @doc "Appends bytes."
  @spec write(t, iodata) :: :ok | {:error, Error.t()}
  def write(file, data), do: Reader.posix(:file.write(file.io, data), :write, file.path)

  @doc "Replaces bytes that were written before."
  @spec write_at(t, non_neg_integer, iodata) :: :ok | {:error, Error.t()}
  def write_at(file, offset, data),
    do: Reader.posix(:file.pwrite(file.io, offset, data), :write, file.path)
end
