defmodule ExCubecl.DocumentsTest do
  # What README, guides and the other documents name is there: files, sections, functions, targets of make.
  use ExUnit.Case, async: true

  alias ExCubecl.Sweep

  @root Path.expand("../..", __DIR__)
  @documents ~w(README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md native/README.md bench/RESULTS.md) ++
               for(
                 pattern <- ["guides/*.md", "notebooks/*.livemd"],
                 path <- Path.wildcard(Path.join(@root, pattern)),
                 do: Path.relative_to(path, @root)
               )

  # Modules for Nx, which the VMs of test/nx compile, and for LiveDashboard.
  @others ~w(ExCubecl.Backend ExCubecl.Nx ExCubecl.Compiler ExCubecl.Compiler.Explanation ExCubecl.LiveDashboard ExCubecl.Telemetry.Metrics)

  defp read(document), do: File.read!(Path.join(@root, document))

  # Code blocks have links and calls of their own.
  defp prose(document), do: Regex.replace(~r/^```.*?^```$/ms, read(document), "")

  test "every link leads to a file, and to a section of it" do
    links =
      for document <- @documents,
          [_, target] <- Regex.scan(~r/\]\(([^)\s]+)\)/, prose(document)),
          not (target =~ ~r/^\w+:/),
          do: {document, target}

    assert length(links) > 10

    for {document, target} <- links do
      [path | section] = String.split(target, "#", parts: 2)
      file = if path == "", do: document, else: Path.join(Path.dirname(document), path)
      assert File.exists?(Path.join(@root, file)), "#{document}: #{target}"
      for name <- section, do: assert(name in sections(file), "#{document}: #{target}")
    end
  end

  defp sections(file) do
    for [_, title] <- Regex.scan(~r/^#+ (.+)$/m, prose(file)) do
      title |> String.downcase() |> String.replace(~r/[^\w\s-]/u, "") |> String.replace(" ", "-")
    end
  end

  # native/README.md names files from several directories on, and the changelog files that are gone.
  test "every file that is named in backticks is there" do
    named =
      for document <- @documents -- ["CHANGELOG.md", "native/README.md"],
          [_, path] <-
            Regex.scan(
              ~r/`((?:lib|test|native|guides|notebooks|scripts|bench|examples|\.github)\/[\w.\/-]+)`/,
              prose(document)
            ),
          do: {document, path}

    assert length(named) > 20

    for {document, path} <- named do
      # guides/architecture.md names private modules from lib/ex_cubecl on.
      places = [path, Path.join("lib/ex_cubecl", path)]
      assert Enum.any?(places, &File.exists?(Path.join(@root, &1))), "#{document}: #{path}"
    end
  end

  test "every target of make that is named is in the Makefile" do
    targets =
      Regex.scan(~r/^([a-z-]+):/m, read("Makefile"), capture: :all_but_first) |> Enum.concat()

    named =
      for document <- @documents,
          [_, target] <- Regex.scan(~r/`make ([a-z-]+)/, prose(document)),
          do: {document, target}

    assert length(named) > 10
    for {document, target} <- named, do: assert(target in targets, "#{document}: make #{target}")
  end

  test "the guides of the documentation are those of the README, in its order" do
    guides =
      for [_, path] <- Regex.scan(~r/\]\((guides\/\w+\.md)\)/, File.read!("README.md")), do: path

    assert Enum.sort(guides) == Path.wildcard("guides/*.md")

    assert guides ==
             Enum.filter(
               Mix.Project.config()[:docs][:extras],
               &String.starts_with?(&1, "guides/")
             )
  end

  # `Buffer.view/3` is a function of ExCubecl.Buffer.
  test "every function that is named with its arity exists" do
    texts =
      for(document <- @documents, do: {document, prose(document)}) ++
        for module <- Sweep.modules(), text <- docs(module), do: {inspect(module), text}

    named =
      for {place, text} <- texts,
          [_, module, name, arity] <-
            Regex.scan(~r/`((?:[A-Z]\w*\.)+)([a-z_]\w*[!?]?)\/(\d+)`/, text),
          module = module(String.trim_trailing(module, ".")),
          module != nil,
          do: {place, module, String.to_atom(name), String.to_integer(arity)}

    assert length(named) > 150

    missing =
      for {place, module, name, arity} <- named,
          not defined?(module, name, arity),
          do: "#{place}: #{inspect(module)}.#{name}/#{arity}"

    assert missing == []
  end

  # An option may be described where a function refers to, or for all functions of a module.
  test "every option of a function is documented" do
    calls =
      Sweep.calls(Sweep.values()) |> Enum.uniq_by(fn {m, f, args} -> {m, f, length(args)} end)

    texts = Map.new(Sweep.modules(), &{&1, texts(&1)})

    missing =
      for {module, name, [_ | _] = args} <- calls,
          not String.ends_with?(Atom.to_string(name), "!") and module != ExCubecl.Device,
          text = options_text(texts, module, name, 2),
          option <- options(module, name, args),
          not (text =~ ~r/\b#{option}: |`:?#{option}:?`/),
          do: "#{inspect(module)}.#{name}/#{length(args)}: #{option}:"

    assert missing == []
  end

  # Those that the error about an unknown one lists.
  defp options(module, name, args) do
    with {:error, %{details: %{argument: :option, expected: "one of :" <> names}}} <-
           apply(module, name, List.replace_at(args, -1, unknown: 1)),
         do: String.split(names, ", :"),
         else: (_ -> [])
  rescue
    # Predicates raise.
    ExCubecl.Error -> []
  end

  # The documentation of a function, with that of the functions and types that it names.
  defp options_text(texts, module, name, depth) do
    {about, of_names} = texts[module]
    text = Map.get(of_names, name, "")

    named =
      for [_, prefix, other] <- Regex.scan(~r/`(?:t:)?((?:[A-Z]\w*\.)*)([a-z_]\w*)\/\d/, text),
          depth > 0,
          other = String.to_atom(other),
          place = if(prefix == "", do: module, else: module(String.trim_trailing(prefix, "."))),
          is_map_key(texts, place),
          do: options_text(texts, place, other, depth - 1)

    Enum.join([about, text | named], "\n")
  end

  # The documentation of a module, and of its functions and types by name.
  defp texts(module) do
    {:docs_v1, _, _, _, %{"en" => about}, _, docs} = Code.fetch_docs(module)
    texts = for {{_, name, _}, _, _, %{"en" => text}, _} <- docs, do: {name, text}

    {about,
     Enum.reduce(texts, %{}, fn {name, text}, all ->
       Map.update(all, name, text, &(&1 <> text))
     end)}
  end

  defp docs(module) do
    {:docs_v1, _, _, _, moduledoc, _, docs} = Code.fetch_docs(module)
    for %{"en" => text} <- [moduledoc | Enum.map(docs, &elem(&1, 3))], do: text
  end

  # The module of a name with or without `ExCubecl.`, in which documents alias; `nil` for one that is not compiled here.
  defp module(name) do
    candidates =
      if name in ["Kernel"], do: ["ExCubecl.Kernel", "Kernel"], else: ["ExCubecl.#{name}", name]

    cond do
      Enum.any?(candidates, &(&1 in @others)) -> nil
      true -> Enum.find_value(candidates, &loaded/1)
    end
  end

  defp loaded(name) do
    module = Module.concat([name])
    if Code.ensure_loaded?(module), do: module
  end

  defp defined?(module, name, arity) do
    function_exported?(module, name, arity) or macro_exported?(module, name, arity) or
      callback?(module, name, arity)
  end

  defp callback?(module, name, arity) do
    match?({:ok, _}, Code.Typespec.fetch_callbacks(module)) and
      {name, arity} in for(
        {callback, _} <- elem(Code.Typespec.fetch_callbacks(module), 1),
        do: callback
      )
  end
end
