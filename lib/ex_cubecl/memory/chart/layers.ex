defmodule ExCubecl.Memory.Chart.Layers do
  @moduledoc false
  # The layers of a timeline by tag: those of the largest tags, and one of all other live bytes.

  alias ExCubecl.Memory.Chart.{Colour, Entries}

  # More layers would be too thin to tell apart.
  @most 12
  @untagged "#b9c0c8"
  @rest "#8d96a0"

  @doc "Layers from the bottom, each with its name, its colour, and its bytes in each sample."
  @spec of([map]) :: [%{name: String.t(), colour: String.t(), bytes: [non_neg_integer]}]
  def of(samples) do
    peaks = Enum.reduce(samples, %{}, &Map.merge(&2, &1.by_tag, fn _tag, a, b -> max(a, b) end))
    tags = peaks |> Enum.sort_by(fn {tag, bytes} -> {-bytes, tag} end) |> Enum.take(@most)
    tags = for {tag, _} <- tags, do: tag
    colours = Colour.assign(for tag <- tags, tag != nil, do: {:tag, tag})

    layers =
      for tag <- tags do
        bytes = for sample <- samples, do: Map.get(sample.by_tag, tag, 0)
        %{name: name(tag), colour: Map.get(colours, {:tag, tag}, @untagged), bytes: bytes}
      end

    rest =
      for sample <- samples,
          do:
            max(
              sample.live_bytes - Enum.sum(for tag <- tags, do: Map.get(sample.by_tag, tag, 0)),
              0
            )

    if Enum.any?(rest, &(&1 > 0)),
      do: layers ++ [%{name: "other tags", colour: @rest, bytes: rest}],
      else: layers
  end

  defp name(nil), do: "without a tag"
  defp name(tag), do: "tag #{Entries.text(tag)}"
end
