# make schedulers: measures how long calls block a scheduler. Run it on an otherwise idle machine.
ExCubecl.Schedule.busy_device()
ExCubecl.Schedule.large_arguments(List.first(System.argv()))
