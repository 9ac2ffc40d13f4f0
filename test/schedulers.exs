# make schedulers: how long calls keep a scheduler. Only a machine that does nothing else shows that.
ExCubecl.Schedule.busy_device()
ExCubecl.Schedule.large_arguments(List.first(System.argv()))
