"""Exit codes of tools/train.py and tools/test.py.

Beyond 0 (done), 1 (an error nobody foresaw) and 2 (a command, config, file, sample or disk that cannot be used, in one
line that names it).
"""
DIVERGED = 70  # a loss, a gradient or a weight is not finite; the same command would end there again
PROCESS_LOST = 71  # a loader's worker or another rank died; the same command with --resume goes on
PREEMPTED = 75  # stopped by SIGTERM or SIGUSR1, as sysexits.h has EX_TEMPFAIL; the same command with --resume goes on
