defmodule ExCubecl.Error.Suggestion do
  @moduledoc false
  # What is meant by a name that is misspelled, or that is an option of NumPy, PyTorch, CuPy, Nx or Julia.

  # The options that a name may stand for, in the order in which they are looked for.
  @options %{
    dim: [:axis, :axes],
    dims: [:axes, :axis, :size],
    axis: [:axes],
    axes: [:axis, :contract_axes],
    keepdim: [:keep_axes],
    keepdims: [:keep_axes],
    keep_dims: [:keep_axes],
    perm: [:axes],
    out: [:into],
    type: [:dtype],
    eps: [:epsilon],
    ord: [:order],
    p: [:order, :probabilities],
    size: [:samples],
    bytes: [:size],
    num: [:parts, :samples],
    growable: [:extendable],
    fixed: [:extendable],
    scale: [:deviation],
    weight: [:scale],
    gamma: [:scale],
    beta: [:bias],
    n: [:length, :lengths, :samples, :most],
    limit: [:most],
    top: [:most],
    s: [:lengths],
    num_samples: [:samples],
    replacement: [:replace],
    std: [:deviation],
    stddev: [:deviation],
    sigma: [:deviation],
    loc: [:mean],
    mu: [:mean],
    min: [:low],
    minval: [:low],
    max: [:high],
    maxval: [:high],
    reverse: [:direction],
    descending: [:direction],
    desc: [:direction],
    correction: [:ddof],
    unbiased: [:ddof],
    stride: [:strides],
    dilation: [:kernel_dilation],
    groups: [:feature_group_size],
    upper: [:lower],
    count: [:max],
    interval: [:every],
    threads: [:size, :group],
    workgroup: [:size, :group],
    grid: [:size],
    global: [:size],
    on: [:device],
    backend: [:device],
    client: [:device],
    device_id: [:device],
    only: [:name],
    key: [:name],
    label: [:tag],
    name: [:tag]
  }

  @doc """
  The known option that is meant by another name, or `nil`.

      iex> ExCubecl.Error.Suggestion.option(:dim, [:axis, :keep_axes])
      :axis
      iex> ExCubecl.Error.Suggestion.option(:kep_axes, [:axis, :keep_axes])
      :keep_axes
  """
  @spec option(atom, [atom]) :: atom
  def option(name, known),
    do: Enum.find(@options[name] || [], &(&1 in known)) || similar(name, known)

  @doc """
  The known name with at most two characters more or fewer, and at most half of those of the name; or `nil`.

      iex> ExCubecl.Error.Suggestion.similar(:sqr, [:sin, :sqrt])
      :sqrt
  """
  @spec similar(atom, [atom]) :: atom
  def similar(name, known) do
    text = Atom.to_string(name)
    most = min(div(String.length(text), 2), 2)

    known
    |> Enum.map(&{edits(text, Atom.to_string(&1)), &1})
    |> Enum.filter(fn {edits, _} -> edits <= most end)
    |> Enum.min(fn -> {0, nil} end)
    |> elem(1)
  end

  defp edits(one, other) do
    for {kind, text} <- String.myers_difference(one, other), kind != :eq, reduce: 0 do
      sum -> sum + String.length(text)
    end
  end
end
