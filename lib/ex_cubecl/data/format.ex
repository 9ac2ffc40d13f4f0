defmodule ExCubecl.Data.Format do
  @moduledoc false
  # The format of a file, from its extension or the option `format:`, and the module that reads and writes it.

  alias ExCubecl.Data.Reader
  alias ExCubecl.Error.Arguments

  @extensions %{
    ".npy" => :npy,
    ".npz" => :npz,
    ".safetensors" => :safetensors,
    ".png" => :png,
    ".ppm" => :ppm,
    ".pgm" => :pgm
  }
  @formats Enum.sort(Map.values(@extensions))

  @doc "The format of a path. Formats of several tensors, by name, are `:npz` and `:safetensors`."
  def of(path, opts) do
    case Keyword.fetch(opts, :format) do
      {:ok, format} when format in @formats -> {:ok, format}
      {:ok, other} -> Arguments.invalid(:format, other, "one of #{inspect(@formats)}")
      :error -> by_extension(path)
    end
  end

  defp by_extension(path) do
    with {:ok, path} <- Reader.path(path) do
      case @extensions[path |> Path.extname() |> String.downcase()] do
        nil ->
          known = @extensions |> Map.keys() |> Enum.sort() |> Enum.join(" ")
          Arguments.invalid(:path, path, "one of the extensions #{known}, or the option :format")

        format ->
          {:ok, format}
      end
    end
  end

  @doc "Whether a format has tensors by name."
  def named?(format), do: format in [:npz, :safetensors]
end
