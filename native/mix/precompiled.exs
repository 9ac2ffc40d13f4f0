defmodule ExCubecl.MixProject.Precompiled do
  @moduledoc false
  # Finished NIF libraries of a release. The package on Hex has the file `nif-checksums.txt`, which the release workflow writes:
  #
  #     https://github.com/OWNER/ex_cubecl/releases/download/v0.1.0
  #     <SHA-256 of the file>  ex_cubecl-0.1.0-x86_64-unknown-linux-gnu.so.gz
  #     ...
  #
  # The repository does not have this file, and builds from source. A download is unpacked only if its checksum is right.

  @checksums "nif-checksums.txt"
  @connect_timeout 15_000
  @timeout 300_000

  @doc """
  The path of the library for a target among the files of a release, downloaded if it is not in the cache directory yet; `:none` if there is no
  list of files in `root`, or none for the target.
  """
  def fetch(root, target \\ target(), cache \\ cache()) do
    with {:ok, text} <- File.read(Path.join(root, @checksums)),
         {:ok, url, files} <- parse(text),
         {name, checksum} <- Enum.find(files, :none, fn {name, _} -> for?(name, target) end) do
      library(mirror() || url, name, checksum, cache)
    else
      {:error, message} when is_binary(message) -> {:error, message}
      {:error, _no_file} -> :none
      :none -> :none
    end
  end

  @doc "The target triple of this system as Rust names it; nil where it is not known."
  def target do
    cond do
      target = env("CARGO_BUILD_TARGET") -> target
      env("MIX_TARGET") not in [nil, "host"] -> nil
      true -> target(:os.type(), List.to_string(:erlang.system_info(:system_architecture)))
    end
  end

  @doc false
  def target({:unix, :linux}, architecture) do
    libc = if architecture =~ "musl", do: "musl", else: "gnu"
    with cpu when cpu != nil <- cpu(architecture), do: "#{cpu}-unknown-linux-#{libc}"
  end

  def target({:unix, :darwin}, architecture) do
    with cpu when cpu != nil <- cpu(architecture), do: "#{cpu}-apple-darwin"
  end

  def target({:win32, _}, _architecture) do
    if env("PROCESSOR_ARCHITECTURE") == "AMD64" and :erlang.system_info(:wordsize) == 8,
      do: "x86_64-pc-windows-msvc"
  end

  def target(_os, _architecture), do: nil

  defp cpu(architecture) do
    case architecture |> String.split("-") |> hd() do
      cpu when cpu in ["x86_64", "amd64"] -> "x86_64"
      cpu when cpu in ["aarch64", "arm64"] -> "aarch64"
      _ -> nil
    end
  end

  defp for?(name, target), do: target != nil and name =~ "-#{target}."

  defp parse(text) do
    [url | lines] = String.split(text, "\n", trim: true)

    files =
      for line <- lines, [checksum, name] <- [String.split(line)], into: %{}, do: {name, checksum}

    if url =~ ~r{^https?://} and map_size(files) == length(lines) and
         Enum.all?(files, &valid?/1),
       do: {:ok, url, files},
       else: {:error, "#{@checksums} is damaged: get the package again"}
  end

  # A name is part of a path and of a URL.
  defp valid?({name, checksum}), do: name =~ ~r/^[\w.-]+\.gz$/ and checksum =~ ~r/^[0-9a-f]{64}$/

  defp library(url, name, checksum, cache) do
    path = Path.join(cache, name)

    with :ok <- download_unless_cached(url <> "/" <> name, path, checksum), do: unpacked(path)
  end

  defp download_unless_cached(url, path, checksum) do
    if checksum(path) == checksum do
      :ok
    else
      Mix.shell().info("Downloading #{url}")
      temporary = "#{path}.#{System.pid()}.tmp"

      try do
        with :ok <- made(Path.dirname(path)),
             :ok <- download(url, temporary),
             :ok <- verified(url, temporary, checksum),
             do: renamed(temporary, path)
      after
        File.rm(temporary)
      end
    end
  end

  defp made(directory) do
    with {:error, reason} <- File.mkdir_p(directory),
         do: {:error, "cannot make #{directory}: #{:file.format_error(reason)}"}
  end

  defp renamed(from, to) do
    with {:error, reason} <- File.rename(from, to),
         do: {:error, "cannot write #{to}: #{:file.format_error(reason)}"}
  end

  defp verified(url, path, checksum) do
    case checksum(path) do
      ^checksum -> :ok
      other -> {:error, "#{url} has the SHA-256 #{other} instead of #{checksum}"}
    end
  end

  defp checksum(path) do
    with {:ok, bytes} <- File.read(path),
         do: Base.encode16(:crypto.hash(:sha256, bytes), case: :lower)
  end

  defp unpacked(path) do
    library = String.replace_suffix(path, ".gz", "")
    temporary = "#{library}.#{System.pid()}.tmp"

    with {:ok, bytes} <- File.read(path),
         :ok <- File.write(temporary, :zlib.gunzip(bytes)),
         :ok <- File.rename(temporary, library) do
      {:ok, library}
    else
      {:error, reason} -> {:error, "cannot write #{library}: #{:file.format_error(reason)}"}
    end
  end

  ## HTTP

  defp download(url, path) do
    with :ok <- started() do
      request = {String.to_charlist(url), []}
      options = [timeout: @timeout, connect_timeout: @connect_timeout, autoredirect: true]
      proxy()

      case :httpc.request(
             :get,
             request,
             options ++ ssl(url),
             [stream: to_charlist(path)],
             :ex_cubecl
           ) do
        {:ok, :saved_to_file} -> :ok
        {:ok, {{_, status, _}, _, _}} -> {:error, "#{url} answered with status #{status}"}
        {:error, reason} -> {:error, "#{url} cannot be downloaded: #{inspect(reason)}"}
      end
    end
  end

  # Distributions divide Erlang into packages, so that these may be missing.
  defp started do
    for app <- [:inets, :ssl, :public_key], function_exported?(Mix, :ensure_application!, 1) do
      apply(Mix, :ensure_application!, [app])
    end

    with {:ok, _} <- Application.ensure_all_started(:inets),
         {:ok, _} <- Application.ensure_all_started(:ssl) do
      case :inets.start(:httpc, profile: :ex_cubecl) do
        {:error, {:already_started, _}} -> :ok
        {:ok, _} -> :ok
      end
    else
      {:error, {app, _}} -> {:error, "downloads need Erlang's application #{app}"}
    end
  rescue
    error in Mix.Error -> {:error, Exception.message(error)}
  end

  defp ssl("http:" <> _), do: []

  defp ssl(_url) do
    [
      ssl: [
        verify: :verify_peer,
        depth: 4,
        cacerts: :public_key.cacerts_get(),
        customize_hostname_check: [
          match_fun: :public_key.pkix_verify_hostname_match_fun(:https)
        ]
      ]
    ]
  end

  defp proxy do
    for {option, names} <- [
          https_proxy: ~w(HTTPS_PROXY https_proxy),
          proxy: ~w(HTTP_PROXY http_proxy)
        ],
        address = Enum.find_value(names, &env/1),
        %URI{host: host, port: port} when is_binary(host) <- [URI.parse(address)] do
      :httpc.set_options([{option, {{to_charlist(host), port}, []}}], :ex_cubecl)
    end
  end

  # An empty variable counts as unset.
  defp env(name) do
    with "" <- System.get_env(name), do: nil
  end

  defp mirror, do: env("EX_CUBECL_MIRROR")
  defp cache, do: :user_cache |> :filename.basedir("ex_cubecl") |> Path.join("nif")
end
