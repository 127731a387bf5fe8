"""Run a command from its arguments to the end: launcher, Runner, optimiser, ranks, sharding, compiling."""
