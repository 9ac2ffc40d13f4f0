defmodule ExCubecl.Data do
  @moduledoc """
  Reads and writes files of arrays and images, straight between a file and a device.

  | extension | format | `read/2` returns | types |
  |---|---|---|---|
  | `.npy` | an array of NumPy | a buffer | all but `:bf16`; complex numbers are read as pairs |
  | `.npz` | arrays of NumPy by name, stored or deflated | a map of buffers | as `.npy` |
  | `.safetensors` | tensors by name | a map of buffers | all |
  | `.png` | an image: grey, RGB, with alpha, with a palette | a buffer of the shape `[height, width]` or `[height, width, channels]` | `:u8` `:u16` |
  | `.ppm` `.pgm` | an image, RGB or grey, in the binary form | as `.png` | `:u8` `:u16` |

  Elements are moved in chunks of 16 MiB: the host memory of a call does not depend on the size of the file (only an interlaced
  PNG image is in host memory, up to 128 MiB). They have the order of bytes that the
  format says, and are converted to that of the machine.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_doctest_\#{System.pid()}.safetensors")
      iex> ExCubecl.Data.write(path, %{"w" => ExCubecl.buffer!([[1.0, 2.0]]), "b" => ExCubecl.buffer!([7], :bf16)})
      :ok
      iex> ExCubecl.to_list!(ExCubecl.Data.read!(path, name: "w"))
      [[1.0, 2.0]]
      iex> for entry <- ExCubecl.Data.list!(path), do: {entry.name, entry.dtype, entry.shape}
      [{"w", :f32, [1, 2]}, {"b", :bf16, [1]}]
      iex> File.rm(path)
      :ok

  A file is untrusted: lengths, offsets and shapes are checked against the size of the file before memory is allocated, headers have bounds, and
  archives are never unpacked into files. A file that is truncated or damaged is the error `:invalid_file`, one that has more than this
  module reads `:unsupported`, and one that cannot be opened `:file`, with the reason of the operating system.

  Files are read by calls to the operating system. Erlang has no memory-mapped files.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, DType, Error, View}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Data.{Format, Npy, Npz, Png, Pnm, Reader, Safetensors, Upload, Writer}
  alias ExCubecl.Error.{Arguments, Text}

  @type tensor :: Buffer.t() | View.t()
  @type entry :: %{
          name: String.t() | nil,
          dtype: DType.t() | String.t(),
          shape: [non_neg_integer],
          bytes: non_neg_integer
        }

  @doc """
  Returns `{:ok, buffer}` with the array or image of a file, or `{:ok, map}` with the tensors of an `.npz` or `.safetensors` file by name.

  An array of NumPy in the order of Fortran is a transposed `ExCubecl.View` of a buffer. NumPy's booleans are `:u8`, complex numbers are pairs along
  an additional last axis, as `ExCubecl.Ops.fft/2` takes them.

  ## Options

    * `:name` - the name of one tensor, which is returned alone; the others are not read
    * `:format` - `:npy`, `:npz`, `:safetensors`, `:png`, `:ppm` or `:pgm`; by default that of the extension
    * `:device`, `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`

  Errors: `:file`, `:invalid_file`, `:unsupported`, `:invalid_argument` for a name that the file does not have, and those of `ExCubecl.Buffer.new/4`.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_doctest_\#{System.pid()}.pgm")
      iex> File.write!(path, "P5 3 2 255 " <> <<1, 2, 3, 4, 5, 6>>)
      iex> ExCubecl.to_list!(ExCubecl.Data.read!(path))
      [[1, 2, 3], [4, 5, 6]]
      iex> File.rm!(path)
      iex> {:error, error} = ExCubecl.Data.read(path)
      iex> {error.reason, error.details.posix}
      {:file, :enoent}
  """
  @spec read(Path.t(), keyword) ::
          {:ok, tensor | %{String.t() => tensor}} | {:error, Error.t()}
  def read(path, opts \\ []) do
    with {:ok, opts} <-
           Arguments.options(opts, [:name, :format, :device | AllocOptions.options()]),
         {:ok, format} <- Format.of(path, opts),
         {name, opts} = Keyword.pop(opts, :name),
         {:ok, name} <- name(name, format),
         {:ok, _} <- AllocOptions.from(Keyword.take(opts, AllocOptions.options())) do
      Reader.open(path, format, &load(format, &1, name, Keyword.delete(opts, :format)))
    end
  end

  defp name(nil, _format), do: {:ok, nil}

  defp name(name, format) do
    if is_binary(name) and Format.named?(format),
      do: {:ok, name},
      else: Arguments.invalid(:name, name, "a string, for files of tensors by name")
  end

  defp load(:npy, file, nil, opts), do: Npy.load_file(file, opts)
  defp load(:png, file, nil, opts), do: Png.load_file(file, opts)
  defp load(format, file, nil, opts) when format in [:ppm, :pgm], do: Pnm.load_file(file, opts)

  defp load(format, file, name, opts) do
    module = if format == :npz, do: Npz, else: Safetensors

    with {:ok, entries} <- module.entries(file),
         {:ok, entries} <- selected(entries, name),
         {:ok, tensors} <- Error.map(entries, &loaded(module, file, &1, opts)) do
      {:ok, if(name, do: tensors |> hd() |> elem(1), else: Map.new(tensors))}
    end
  end

  defp loaded(module, file, entry, opts) do
    with {:ok, tensor} <- module.load(file, entry, opts), do: {:ok, {entry.name, tensor}}
  end

  defp selected(entries, nil), do: {:ok, entries}

  defp selected(entries, name) do
    case Enum.filter(entries, &(&1.name == name)) do
      [] ->
        names = entries |> Enum.map(& &1.name) |> Enum.take(10) |> Text.show()
        Arguments.invalid(:name, name, "one of the #{length(entries)} names #{names}")

      found ->
        {:ok, found}
    end
  end

  @doc """
  Returns `{:ok, entries}`, what a file has, without reading elements: for each tensor a map with its `name` (`nil` for an array or image alone), `dtype`,
  `shape` and `bytes`. The dtype of a tensor that no buffer can hold is the string of the file.

  Option: `:format`, as for `read/2`. Errors: `:file`, `:invalid_file`, `:unsupported`.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_list.safetensors")
      iex> ExCubecl.Data.write!(path, %{"w" => ExCubecl.Buffer.zeros!([2, 3], :f32)})
      iex> ExCubecl.Data.list(path)
      {:ok, [%{name: "w", dtype: :f32, shape: [2, 3], bytes: 24}]}
      iex> File.rm!(path)
      :ok
  """
  @spec list(Path.t(), keyword) :: {:ok, [entry]} | {:error, Error.t()}
  def list(path, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:format]),
         {:ok, format} <- Format.of(path, opts),
         {:ok, entries} <- Reader.open(path, format, &entries(format, &1)) do
      {:ok,
       Enum.map(entries, &Map.take(Map.put_new(&1, :name, nil), [:name, :dtype, :shape, :bytes]))}
    end
  end

  defp entries(:npz, file), do: Npz.entries(file)
  defp entries(:safetensors, file), do: Safetensors.entries(file)

  defp entries(format, file) do
    module = %{npy: Npy, png: Png, ppm: Pnm, pgm: Pnm}[format]
    with {:ok, entry} <- module.of_file(file), do: {:ok, [entry]}
  end

  @doc """
  Returns `:ok` and writes a buffer or view to a file, or a map of them, by name, to an `.npz` or `.safetensors` file.

  The file is written under another name and renamed when it is complete, so that an error leaves an earlier file as it was. Writes to a buffer
  by other processes during the call may be in the file in part.

  ## Options

    * `:format` - as for `read/2`
    * `:compress` - `true` deflates the arrays of an `.npz` file
    * `:metadata` - a map of strings in the header of a `.safetensors` file

  Errors: `:file`, `:invalid_argument` for data that the format does not have, and those of `ExCubecl.Buffer.read/1`.

      iex> path = Path.join(System.tmp_dir!(), "ex_cubecl_doctest_\#{System.pid()}.npy")
      iex> ExCubecl.Data.write(path, ExCubecl.buffer!([[1, 2], [3, 4]]))
      :ok
      iex> ExCubecl.to_list!(ExCubecl.Data.read!(path))
      [[1, 2], [3, 4]]
      iex> File.rm(path)
      :ok
  """
  @spec write(Path.t(), tensor | %{String.t() => tensor}, keyword) :: :ok | {:error, Error.t()}
  def write(path, data, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:format, :compress, :metadata]),
         {:ok, format} <- Format.of(path, opts),
         :ok <- only(opts, :compress, format, :npz),
         :ok <- only(opts, :metadata, format, :safetensors),
         {:ok, data} <- data(data, Format.named?(format)) do
      Writer.create(path, &save(format, &1, data, opts))
    end
  end

  defp only(opts, option, format, of) do
    if format == of or not Keyword.has_key?(opts, option),
      do: :ok,
      else: Arguments.invalid(:option, option, "none: it is for #{of} files")
  end

  defp data(data, false), do: Upload.buffer(data)

  defp data(data, true) when is_map(data) and not is_struct(data) do
    data
    |> Enum.sort()
    |> Error.map(fn {name, tensor} ->
      if is_binary(name) and String.valid?(name),
        do: with({:ok, buffer} <- Upload.buffer(tensor), do: {:ok, {name, buffer}}),
        else: Arguments.invalid(:name, name, "a string")
    end)
  end

  defp data(other, true),
    do: Arguments.invalid(:data, other, "a map of buffers or views, by names that are strings")

  defp save(:npy, file, buffer, _opts), do: Npy.save_file(file, buffer)
  defp save(:png, file, buffer, _opts), do: Png.save_file(file, buffer)
  defp save(:ppm, file, buffer, _opts), do: Pnm.save_file(file, buffer, "P6")
  defp save(:pgm, file, buffer, _opts), do: Pnm.save_file(file, buffer, "P5")
  defp save(:npz, file, tensors, opts), do: Npz.save(file, tensors, opts)
  defp save(:safetensors, file, tensors, opts), do: Safetensors.save(file, tensors, opts)
end
