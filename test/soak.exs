# make soak: processes that use everything at random, for SOAK_SECONDS (600). SOAK_SEED replays.
seconds = String.to_integer(System.get_env("SOAK_SECONDS") || "600")
seed = String.to_integer(System.get_env("SOAK_SEED") || "#{:rand.uniform(1_000_000_000)}")
ExCubecl.Soak.run(seconds, seed)
