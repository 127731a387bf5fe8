"""Every error that becomes one line on stderr and an exit code of the tools."""

# Beyond 0 (done), 1 (an error nobody foresaw) and 2 (a command, config, file, sample or disk that cannot be used).
DIVERGED = 70  # a loss, a gradient or a weight is not finite; the same command would end there again
PROCESS_LOST = 71  # a loader's worker or another rank died; the same command with --resume goes on
PREEMPTED = 75  # stopped by SIGTERM or SIGUSR1, as sysexits.h has EX_TEMPFAIL; the same command with --resume goes on


class ConfigError(ValueError):
    """A config that cannot be run; the message has one line for each mistake."""


class CheckpointError(ValueError):
    """A weight file cannot be used; the message names the file and the remedy."""


class DataError(ConfigError):
    """A sample, or a whole data set, that cannot be used; one line that names it."""

    def __init__(self, text: str):
        # From a worker it comes as the text of a traceback, which ends in ours.
        super().__init__(text.rstrip().rpartition('\n')[2].removeprefix(f'{__name__}.DataError: '))


class Stop(Exception):
    """Ends a run with one line on stderr and `exit_code`."""
    exit_code = 1


class Preempted(Stop):
    """SIGTERM or SIGUSR1 arrived; the run stands where a checkpoint is."""
    exit_code = PREEMPTED


class DivergenceError(Stop):
    """Something is not finite; nothing of it was saved."""
    exit_code = DIVERGED


class ProcessLost(Stop):
    """A worker of a loader or another rank died."""
    exit_code = PROCESS_LOST
