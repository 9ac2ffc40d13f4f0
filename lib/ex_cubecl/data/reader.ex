defmodule ExCubecl.Data.Reader do
  @moduledoc false
  # Reads ranges of a file. Every range is checked against the size of the file, so that a length in a broken or hostile file is an error and
  # allocates nothing.

  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  # Bytes that are read at once. A multiple of the size of every element.
  @chunk 16 * 1024 * 1024

  @enforce_keys [:io, :path, :size, :format]
  defstruct @enforce_keys

  @type t :: %__MODULE__{io: :file.fd(), path: Path.t(), size: non_neg_integer, format: atom}

  @doc "Bytes of one chunk."
  def chunk, do: @chunk

  @doc "The result of `fun` with a file that is open for reading."
  @spec open(Path.t(), atom, (t -> result)) :: result | {:error, Error.t()} when result: term
  def open(path, format, fun) do
    with {:ok, path} <- path(path),
         {:ok, stat} <- posix(File.stat(path), :read, path),
         :ok <- regular(stat, path),
         {:ok, io} <- posix(:file.open(path, [:read, :raw, :binary]), :read, path) do
      try do
        # Another file may have been renamed to this path meanwhile.
        with {:ok, info} <- posix(:file.read_file_info(io), :read, path),
             do: fun.(%__MODULE__{io: io, path: path, size: size(info), format: format})
      after
        :file.close(io)
      end
    end
  end

  defp size(info), do: File.Stat.from_record(info).size

  @doc "A path as a string."
  def path(path) do
    text = IO.chardata_to_string(path)

    if text == "" or String.contains?(text, "\0"), do: no_path(path), else: {:ok, text}
  rescue
    _ -> no_path(path)
  end

  defp no_path(path), do: Arguments.invalid(:path, path, "the path of a file")

  # Reads of a pipe or a device may wait forever or never end.
  defp regular(%{type: :regular}, _path), do: :ok
  defp regular(%{type: :directory}, path), do: posix({:error, :eisdir}, :read, path)
  defp regular(_stat, path), do: Arguments.invalid(:path, path, "the path of a regular file")

  @doc "The result of a call of `:file`, with an error that names the operation and the path."
  def posix({:error, reason}, operation, path),
    do: Error.new(:file, operation: operation, path: path, posix: reason)

  def posix(result, _operation, _path), do: result

  @doc "The error of a file that is not what its format says."
  @spec invalid(t, String.t()) :: {:error, Error.t()}
  def invalid(file, problem),
    do: Error.new(:invalid_file, path: file.path, format: file.format, problem: problem)

  @doc "The error of a file whose format has more than this library reads."
  @spec unsupported(t, String.t()) :: {:error, Error.t()}
  def unsupported(file, what),
    do: Error.new(:unsupported, operation: :file, path: file.path, what: what)

  @doc "Exactly `count` bytes from byte `offset` on; `what` is the name of this part of the file in an error."
  @spec bytes(t, non_neg_integer, non_neg_integer, String.t()) ::
          {:ok, binary} | {:error, Error.t()}
  def bytes(_file, _offset, 0, _what), do: {:ok, <<>>}

  def bytes(file, offset, count, what) do
    with :ok <- inside(file, offset, count, what) do
      case :file.pread(file.io, offset, count) do
        {:ok, bytes} when byte_size(bytes) == count -> {:ok, bytes}
        {:error, _} = error -> posix(error, :read, file.path)
        _ -> invalid(file, "it became shorter while it was read")
      end
    end
  end

  @doc "Checks that a range is inside of the file."
  def inside(%{size: size}, offset, count, _what) when offset + count <= size, do: :ok

  def inside(file, offset, count, what) do
    invalid(
      file,
      "#{what} is at bytes #{offset} to #{offset + count}, and the file has #{file.size}: it is truncated or damaged"
    )
  end

  @doc """
  A stream of the bytes of a range, for `ExCubecl.Data.Upload`: a function without arguments that returns `{:ok, bytes, next}` with the function for the rest,
  `:done`, or an error.
  """
  def range(file, offset, count, what) do
    fn ->
      case min(count, @chunk) do
        0 ->
          :done

        length ->
          with {:ok, bytes} <- bytes(file, offset, length, what) do
            # The system reads the next chunk while this one goes to the device.
            :file.advise(file.io, offset + length, min(count - length, @chunk), :will_need)
            {:ok, bytes, range(file, offset + length, count - length, what)}
          end
      end
    end
  end
end
