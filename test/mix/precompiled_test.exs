defmodule ExCubecl.MixProject.PrecompiledTest do
  use ExUnit.Case, async: true

  alias ExCubecl.MixProject.Precompiled

  @name "ex_cubecl-0.1.0-x86_64-unknown-linux-gnu.so.gz"
  @target "x86_64-unknown-linux-gnu"
  @library "a library"

  @moduletag :tmp_dir

  setup %{tmp_dir: directory} do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    test = self()
    packed = :zlib.gzip(@library)
    start_supervised!({Task, fn -> serve(listener, packed, test) end})

    [
      url: "http://127.0.0.1:#{port}/v0.1.0",
      packed: packed,
      root: directory,
      cache: Path.join(directory, "cache")
    ]
  end

  # Answers each request for the library with its bytes, and every other one with 404.
  defp serve(listener, packed, test) do
    {:ok, socket} = :gen_tcp.accept(listener)
    {:ok, request} = :gen_tcp.recv(socket, 0)
    ["GET", path | _] = String.split(request)
    send(test, {:request, path})

    {status, body} =
      if Path.basename(path) == @name, do: {"200 OK", packed}, else: {"404 Not Found", ""}

    :ok =
      :gen_tcp.send(
        socket,
        "HTTP/1.1 #{status}\r\ncontent-length: #{byte_size(body)}\r\nconnection: close\r\n\r\n" <>
          body
      )

    :gen_tcp.close(socket)
    serve(listener, packed, test)
  end

  defp list(root, url, lines),
    do: File.write!(Path.join(root, "nif-checksums.txt"), Enum.join([url | lines], "\n"))

  defp line(bytes, name),
    do: "#{Base.encode16(:crypto.hash(:sha256, bytes), case: :lower)}  #{name}"

  defp fetch(context, target \\ @target),
    do: Precompiled.fetch(context.root, target, context.cache)

  defp quietly(fun) do
    ExUnit.CaptureIO.capture_io(fn -> send(self(), {:result, fun.()}) end)
    assert_received {:result, result}
    result
  end

  test "the library of the target is downloaded once and unpacked", context do
    list(context.root, context.url, [line(context.packed, @name)])
    assert {:ok, path} = quietly(fn -> fetch(context) end)
    assert File.read!(path) == @library
    assert_received {:request, "/v0.1.0/" <> @name}

    assert {:ok, ^path} = fetch(context)
    refute_received {:request, _}
  end

  test "a damaged file in the cache is downloaded again", context do
    list(context.root, context.url, [line(context.packed, @name)])
    File.mkdir_p!(context.cache)
    File.write!(Path.join(context.cache, @name), "damaged")
    assert {:ok, path} = quietly(fn -> fetch(context) end)
    assert File.read!(path) == @library
  end

  test "a file with another checksum is not unpacked", context do
    list(context.root, context.url, [line("another", @name)])
    assert {:error, message} = quietly(fn -> fetch(context) end)
    assert message =~ "instead of"
    assert File.ls!(context.cache) == []
  end

  test "a missing file and a server that does not answer are errors", context do
    missing = "ex_cubecl-0.1.0-aarch64-apple-darwin.so.gz"
    list(context.root, context.url, [line("", missing)])
    assert {:error, message} = quietly(fn -> fetch(context, "aarch64-apple-darwin") end)
    assert message =~ "status 404"

    {:ok, closed} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(closed)
    :gen_tcp.close(closed)
    list(context.root, "http://127.0.0.1:#{port}", [line("", @name)])
    assert {:error, message} = quietly(fn -> fetch(context) end)
    assert message =~ "cannot be downloaded"
  end

  test "without a list, or without the target in it, there is no library", context do
    assert fetch(context) == :none
    list(context.root, context.url, [line(context.packed, @name)])
    assert fetch(context, "riscv64gc-unknown-linux-gnu") == :none
    assert fetch(context, nil) == :none
  end

  test "a damaged list is an error", context do
    for lines <- [["no checksum"], ["#{String.duplicate("0", 64)}  ../../evil.gz"]] do
      list(context.root, context.url, lines)
      assert {:error, "nif-checksums.txt is damaged" <> _} = fetch(context)
    end

    list(context.root, "file:///etc", [line(context.packed, @name)])
    assert {:error, "nif-checksums.txt is damaged" <> _} = fetch(context)
  end

  test "targets are named as Rust names them" do
    for {os, architecture, target} <- [
          {{:unix, :linux}, "x86_64-pc-linux-gnu", "x86_64-unknown-linux-gnu"},
          {{:unix, :linux}, "aarch64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"},
          {{:unix, :linux}, "x86_64-pc-linux-musl", "x86_64-unknown-linux-musl"},
          {{:unix, :darwin}, "aarch64-apple-darwin23.4.0", "aarch64-apple-darwin"},
          {{:unix, :darwin}, "x86_64-apple-darwin20.6.0", "x86_64-apple-darwin"},
          {{:unix, :linux}, "armv7l-unknown-linux-gnueabihf", nil},
          {{:unix, :freebsd}, "amd64-portbld-freebsd13.2", nil}
        ],
        do: assert(Precompiled.target(os, architecture) == target)
  end
end
