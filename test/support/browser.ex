defmodule ExCubecl.Browser do
  @moduledoc false
  # A browser without a window, controlled by chromedriver over WebDriver, for tests of HTML pages. The tests are skipped where one of the two is missing.

  alias ExCubecl.Data.Json

  @enforce_keys [:port, :session, :driver]
  defstruct @enforce_keys

  @browsers ~w(chromium chromium-browser google-chrome chrome)

  @doc "Whether this machine has a browser and its driver."
  def there?, do: executable(["chromedriver"]) != nil and executable(@browsers) != nil

  defp executable(names), do: Enum.find_value(names, &System.find_executable/1)

  @doc "Calls `fun` with an open browser, and ends the browser and its driver."
  def with_browser(fun) do
    driver =
      Port.open({:spawn_executable, executable(["chromedriver"])}, [
        :binary,
        :stderr_to_stdout,
        args: ["--port=0"]
      ])

    {:os_pid, pid} = Port.info(driver, :os_pid)

    try do
      browser = open(driver, listening(driver, ""))

      try do
        fun.(browser)
      after
        request(browser, "DELETE", "", "")
      end
    after
      System.cmd("kill", [to_string(pid)])
      closed(driver)
    end
  end

  # The port on which the driver listens; it takes a free one and prints it.
  defp listening(driver, text) do
    case Regex.run(~r/started successfully on port (\d+)/, text) do
      [_, port] ->
        String.to_integer(port)

      nil ->
        receive do
          {^driver, {:data, more}} -> listening(driver, text <> more)
        after
          60_000 -> raise "chromedriver does not start: #{text}"
        end
    end
  end

  defp closed(driver) do
    receive do
      {^driver, {:data, _}} -> closed(driver)
    after
      0 -> if Port.info(driver), do: Port.close(driver)
    end
  end

  # Without a sandbox, because root may run the tests.
  defp open(driver, port) do
    browser = %__MODULE__{port: port, session: nil, driver: driver}

    options =
      ~s("args":["--headless=new","--no-sandbox","--disable-gpu","--disable-dev-shm-usage"])

    capabilities =
      ~s({"capabilities":{"alwaysMatch":{"goog:chromeOptions":{"binary":#{Json.string(executable(@browsers))},#{options}}}}})

    reply = request(browser, "POST", "", capabilities)
    [_, session] = Regex.run(~r/"sessionId":"(\w+)"/, reply)
    %{browser | session: session}
  end

  @doc "Opens the page of a file."
  def visit(browser, path) do
    request(browser, "POST", "/url", ~s({"url":#{Json.string("file://" <> path)}}))
    browser
  end

  @doc "Presses keys in the element that a selector of CSS finds first."
  def type(browser, selector, text) do
    request(
      browser,
      "POST",
      "/element/#{element(browser, selector)}/value",
      ~s({"text":#{Json.string(text)}})
    )

    browser
  end

  @doc "Clicks on the element that a selector of CSS finds first."
  def click(browser, selector) do
    request(browser, "POST", "/element/#{element(browser, selector)}/click", "{}")
    browser
  end

  defp element(browser, selector) do
    body = ~s({"using":"css selector","value":#{Json.string(selector)}})

    [_, id] =
      Regex.run(~r/"value":\{"[^"]+":"([^"]+)"/, request(browser, "POST", "/element", body))

    id
  end

  @doc "The value of an expression of JavaScript, as a string."
  def value(browser, expression) do
    # Encoded, so that the reply needs no parser of JSON.
    script = "return encodeURIComponent(String(#{expression}))"

    reply =
      request(browser, "POST", "/execute/sync", ~s({"script":#{Json.string(script)},"args":[]}))

    [_, value] = Regex.run(~r/"value":"([^"]*)"/, reply)
    URI.decode(value)
  end

  defp request(browser, method, path, body) do
    session = if browser.session, do: "/session/#{browser.session}", else: "/session"
    body = IO.iodata_to_binary(body)

    head =
      "#{method} #{session}#{path} HTTP/1.1\r\nHost: localhost:#{browser.port}\r\nContent-Type: application/json\r\n" <>
        "Content-Length: #{byte_size(body)}\r\nConnection: close\r\n\r\n"

    {:ok, socket} = :gen_tcp.connect(~c"127.0.0.1", browser.port, [:binary, active: false])
    :ok = :gen_tcp.send(socket, head <> body)
    reply = received(socket, "")
    :gen_tcp.close(socket)
    true = reply =~ ~r/\AHTTP\/1\.1 200/ or raise "WebDriver: #{method} #{path}: #{reply}"
    reply
  end

  # The reply ends with the bytes that its header announces.
  defp received(socket, reply) do
    with [_, head, length] <- Regex.run(~r/\A(.*?content-length: *(\d+).*?\r\n\r\n)/is, reply),
         true <- byte_size(reply) >= byte_size(head) + String.to_integer(length) do
      reply
    else
      _ ->
        {:ok, more} = :gen_tcp.recv(socket, 0, 120_000)
        received(socket, reply <> more)
    end
  end
end
