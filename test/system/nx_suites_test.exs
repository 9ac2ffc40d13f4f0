defmodule ExCubecl.NxSuitesTest do
  # Nx's own tests of what does not depend on a backend. EX_CUBECL_NX_SOURCES is a directory with Nx's sources, in which mix.exs, lib and test are, of the version that the
  # tests tagged :nx use.
  use ExUnit.Case, async: false

  alias ExCubecl.NxVm

  @sources System.get_env("EX_CUBECL_NX_SOURCES")
  @moduletag :nx
  @moduletag timeout: 900_000
  @moduletag skip: if(@sources, do: nil, else: "EX_CUBECL_NX_SOURCES names no sources of Nx")

  # Tests that fail, by the reason; not all are in every version.
  @known %{
    # These use tensors of the default backend as parts of expressions, which Nx allows for those of Nx.BinaryBackend only, or together with tensors of a backend of
    # their own.
    another_backend: [
      {"evaluator", "test slice"},
      {"expr", "test constant optimizations logsumexp"},
      {"expr", "test constant optimizations preserves names"},
      {"expr",
       "test constant optimizations upcast float constants when operating against higher precision types"},
      {"expr", "test inspect with fun"},
      {"expr", "test inspect with metadata"},
      {"expr", "test inspect with parameters"},
      {"expr", "test inspect with scalar"},
      {"expr", "test inspect with tensors"},
      {"optional",
       "test optional callbacks (defn) calls the default impl if custom does not exist"},
      {"tree", "test apply_args handles concatenate"},
      {"tree", "test apply_args handles regular operations"}
    ],
    # Nx 0.13 refuses tensors that a function captures, as the above.
    closure: [
      {"grad",
       "test conv rule computes gradient of kernel when image is a constant closure variable"},
      {"grad",
       "test vectorization composed: sigmoid(x @ w + b) (exercises composed chain with captures)"},
      {"grad", "test vectorization conv with vectorized (exercises conv grad)"},
      {"grad",
       "test vectorization dot with captured matrix (exercises concrete tensor handling)"},
      {"grad", "test vectorization grad of non-vectorized target with vectorized capture"},
      {"grad",
       "test vectorization mixed: vectorized x * non-vectorized y (exercises broadcast_vectors)"},
      {"grad", "test vectorization non-vectorized input, vectorized output"},
      {"grad",
       "test vectorization supports combination of vectorized and non-vectorized tensors"},
      {"grad",
       "test vectorization supports combination of vectorized and non-vectorized tensors over composed function"},
      {"grad",
       "test vectorization vectorized grad through Nx.LinAlg.triangular_solve with captured a"},
      {"grad", "test vectorization window_scatter_max/min with vectorized inputs"}
    ],
    # Two tensors are the same term only if their elements are in host memory.
    compared_as_terms: [
      {"grad", "test metadata computes custom grad"},
      {"serving", "test run/2 with client pre/post"}
    ],
    no_telemetry_test: [
      {"serving", "test batched_run instrumenting with telemetry"},
      {"serving", "test run/2 instrumenting with telemetry"}
    ],
    # These wait for a message for 100 ms, or expect a process to have ended by then. Those of the shutdown expect that the second client has called before the serving is
    # terminated: a later one calls the serving that ExUnit restarts, and waits for its batch. With Nx.BinaryBackend they fail, too, if it calls 300 ms later.
    timing: [
      {"serving", "test batched_run 2+3=>crash"},
      {"serving", "test batched_run 2=>2=>1+timeout"},
      {"serving", "test batched_run 2=>shutdown=>2 (queued)"},
      {"serving", "test batched_run 2=>shutdown=>1 (stacked)"}
    ],
    # Nx expects an ArgumentError for the remainder of an infinity, and another sign bit of NaN.
    ieee_754: [
      {"non_finite", "test binary operations remainder"},
      {"non_finite", "test aggregate operations sum"}
    ],
    # The expected numbers are those of Complex 0.7; Nx.BinaryBackend fails with Complex 0.6, too.
    complex: [
      {"non_finite", "test aggregate operations product"},
      {"non_finite", "test unary operations cosh"},
      {"non_finite", "test unary operations exp"},
      {"non_finite", "test unary operations expm1"},
      {"non_finite", "test unary operations sinh"},
      {"non_finite", "test window operations window_product"}
    ],
    # The vector that belongs to a singular value of 0 is not unique; Nx expects one of length 0.
    not_unique: [{"lin_alg", "test svd finds the singular values of tall matrices"}],
    # Random matrices, of which the tolerance suits most: with Nx.BinaryBackend, 9 of 150 keys fail.
    random: [{"lin_alg", "test least_squares properties for linear equations"}],
    # 1.0e-7, in 32 bits, where 1.0e-8 is expected.
    tolerance: [{"nx", "test fft/ifft Bluestein clause"}]
  }

  # Exact comparisons of floats, with the largest difference in units in the last place.
  @ulps %{
    {"evaluator", "test decompositions qr"} => 1,
    {"grad", "test pad computes with pad value from tensor"} => 2,
    {"grad", "test take computes gradient"} => 1,
    {"nx", "test covariance/1 calculates the covariance of a tensor"} => 2,
    {"nx", "test covariance/1 uses optional ddof"} => 1,
    {"nx", "test covariance/1 with tensor batch"} => 2,
    {"random", "test types multivariate_normal"} => 2,
    {"random", "test types normal"} => 2,
    {"random", "test types uniform"} => 1
  }

  for {limit, where} <- [{"64", "small tensors on the host"}, {"0", "every tensor on the device"}] do
    test "the tests of Nx, #{where}" do
      env = [{"NX_SOURCES", @sources}, {"NX_HOST_LIMIT", unquote(limit)}]
      {total, _, out} = NxVm.run(["suites"], env)
      assert total > 1_400

      failed =
        for [text] <- Regex.scan(~r/{:failed, {.*}}$/m, out) do
          {{:failed, {file, test, reason}}, _} = Code.eval_string(text)
          {{file, test}, reason}
        end

      known = Enum.concat(Map.values(@known))

      unknown =
        for {test, reason} <- failed,
            test not in known,
            not close?(test, reason),
            do: {test, reason}

      assert unknown == []
    end
  end

  defp close?(test, {:ulp, n}), do: n <= Map.get(@ulps, test, 0)
  defp close?(_test, _reason), do: false
end
