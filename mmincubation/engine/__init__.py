"""From a command to a finished run: launcher, Runner, optimiser, ranks, sharding, compiling."""
