defmodule ExCubecl.Memory.Chart.PageTest do
  # The search of the HTML page of a map, in a real browser.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Browser, DataFiles}
  alias ExCubecl.Memory.Chart

  @backspace "\uE003"
  @enter "\uE007"

  # Expressions of JavaScript.
  @shown ~s|[...document.querySelectorAll(".buffers tbody tr")].filter(row => row.offsetHeight > 0).map(row => row.cells[2].textContent).sort().join(" ")|
  @count ~s|[...document.querySelectorAll(".buffers tbody tr")].filter(row => row.offsetHeight > 0).length|
  @note ~s|document.querySelector("output").textContent|
  @faded ~s|[...document.querySelectorAll("rect.out")].filter(box => getComputedStyle(box).opacity < 0.5).length|
  @boxes ~s|document.querySelectorAll("rect[data-n]").length|
  @button ~s|document.querySelector("button").offsetHeight > 0|

  @tag :browser
  test "typing into the search, the button, a click on a group" do
    path = Path.join(DataFiles.directory(), "map.html")
    # Not numbers, which the ids of the owners may have, too.
    for {name, n} <- [alpha: 1, beta: 2, gamma: 3],
        do: keep(Buffer.zeros!([n * 100_000], :u8, tag: {:weights, name}))

    for _ <- 1..70, do: keep(Buffer.zeros!([5_000], :u8, tag: "a <b> & c"))
    parent = self()

    {:ok, other} = Agent.start(fn -> Buffer.zeros!([200_000], :u8, tag: :of_another_process) end)

    on_exit(fn -> if Process.alive?(other), do: Agent.stop(other) end)
    assert Chart.save(Chart.map!(), path) == :ok

    Browser.with_browser(fn browser ->
      Browser.visit(browser, path)
      assert Browser.value(browser, @note) =~ ~r/^\d+ buffers, .*; the 50 largest are listed$/
      assert Browser.value(browser, @count) == "50"
      assert Browser.value(browser, @button) == "true"
      assert Browser.value(browser, @faded) == "0"

      Browser.type(browser, "input", "WEIGHTS")

      assert Browser.value(browser, @shown) ==
               "{:weights, :alpha} {:weights, :beta} {:weights, :gamma}"

      assert Browser.value(browser, @note) =~ ~r/^3 of \d+ buffers match, 586 KiB$/
      assert Browser.value(browser, @button) == "false"
      # Three boxes stay as they were, or fewer if small allocations share one.
      [boxes, faded] = for e <- [@boxes, @faded], do: String.to_integer(Browser.value(browser, e))
      assert (boxes - faded) in 1..3 and faded > 0

      # The key for a new line neither sends the form nor changes the search.
      Browser.type(browser, "input", " beta" <> @enter)
      assert Browser.value(browser, @shown) == "{:weights, :beta}"
      assert Browser.value(browser, "location.pathname") == path

      Browser.type(browser, "input", String.duplicate(@backspace, 12) <> "<b> &")
      assert Browser.value(browser, @note) =~ ~r/^70 of \d+ buffers match/
      assert Browser.value(browser, @count) == "50"
      Browser.click(browser, "button")
      assert Browser.value(browser, @count) == "70"

      Browser.type(browser, "input", String.duplicate(@backspace, 5) <> inspect(other))
      assert Browser.value(browser, @shown) == ":of_another_process"
      Browser.type(browser, "input", String.duplicate(@backspace, 40) <> inspect(parent))
      refute Browser.value(browser, @shown) =~ "another_process"

      row = ".groups tr[data-s=':of_another_process']"
      Browser.click(browser, row)

      assert Browser.value(browser, ~s|document.querySelector("input").value|) ==
               ":of_another_process"

      assert Browser.value(browser, @shown) == ":of_another_process"
      Browser.click(browser, row)
      assert Browser.value(browser, @count) == "50"

      Browser.type(browser, "input", "nothing has this")
      assert Browser.value(browser, @note) =~ ~r/^0 of \d+ buffers match, 0 B$/
      assert Browser.value(browser, @count) == "0"
    end)
  end
end
