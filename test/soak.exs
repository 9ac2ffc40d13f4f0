# make soak: processes make random calls of everything for SOAK_SECONDS (600). SOAK_SEED replays a run.
seconds = String.to_integer(System.get_env("SOAK_SECONDS") || "600")
seed = String.to_integer(System.get_env("SOAK_SEED") || "#{:rand.uniform(1_000_000_000)}")
ExCubecl.Soak.run(seconds, seed)
