defmodule ExCubecl.Ops.Interface.Order do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for operations that sort: documentation, specs and the modules that implement them.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Ops.{Into, Sorting}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}` with the elements sorted along `axis:`, the last axis by default. `direction:` is `:asc` (the default) or `:desc`.

      NaN is greater than all numbers: it is last in ascending and first in descending order. Equal elements, such as 0.0 and -0.0, keep their order in both
      directions: every sort is stable, whatever `stable:` is.

          iex> ExCubecl.to_list!(ExCubecl.Ops.sort!(ExCubecl.buffer!([[3, 1, 2], [0, 9, 4]], [2, 3], :s32)))
          [[1, 2, 3], [0, 4, 9]]
          iex> ExCubecl.to_list!(ExCubecl.Ops.sort!(ExCubecl.buffer!([1.0, :nan, 2.0], [3], :f32), direction: :desc))
          [:nan, 2.0, 1.0]
      """
      @spec sort(tensor, keyword) :: result | :ok
      def sort(buffer, opts \\ []),
        do: Into.run(:sort, [buffer: buffer], opts, &Sorting.sort(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the indices that sort the elements along `axis:`, in the order of `sort/2`, whose options it takes. `dtype:` is the type of the
      indices, `:s32` (the default) or `:s64`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.argsort!(ExCubecl.buffer!([30, 10, 20, 10], [4], :s32)))
          [1, 3, 2, 0]
      """
      @spec argsort(tensor, keyword) :: result | :ok
      def argsort(buffer, opts \\ []),
        do: Into.run(:argsort, [buffer: buffer], opts, &Sorting.argsort(buffer, &1, &2))

      @doc """
      Returns `{:ok, {values, indices}}` with the `k` greatest elements along `axis:`, the last axis by default, in descending order, and their indices; NaN is the
      greatest element, and of equal elements the first one is first. `dtype:` is as for `argsort/2`; `into:` is a pair of buffers.

          iex> {values, indices} = ExCubecl.Ops.top_k!(ExCubecl.buffer!([3, 9, 5, 9], [4], :u8), 3)
          iex> {ExCubecl.to_list!(values), ExCubecl.to_list!(indices)}
          {[9, 9, 5], [1, 3, 2]}
      """
      @spec top_k(tensor, non_neg_integer, keyword) ::
              {:ok, {Buffer.t(), Buffer.t()}} | :ok | {:error, Error.t()}
      def top_k(buffer, k, opts \\ []),
        do: Into.run_pair(:top_k, [buffer: buffer], opts, &Sorting.top_k(buffer, k, &1, &2))

      @doc """
      Returns `{:ok, buffer}`, a vector with the distinct elements in ascending order: the first one of equal elements, such as 0.0 and -0.0, and one NaN. The call
      waits for the device, because the length of the result is the number of distinct elements.

          iex> ExCubecl.to_list!(ExCubecl.Ops.unique!(ExCubecl.buffer!([[3, 1], [1, 3]], [2, 2], :s32)))
          [1, 3]
      """
      @spec unique(tensor) :: result
      def unique(buffer), do: Sorting.unique(buffer)
    end
  end
end
