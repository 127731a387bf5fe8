"""torchrun, with the exit code of what it ran: `python -m mmincubation.engine.torchrun` takes torchrun's arguments.

torchrun itself ends with 1 whatever became of its ranks, so that no scheduler could tell a preempted run from a broken
one. The signals named by --signals_to_handle it sends on to every rank, and kills what is left after
TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds.
"""
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from mmincubation.errors import PREEMPTED


def main() -> int:
    """The exit code: that of the rank that failed first (128 + N after signal N), 75 after SIGTERM or SIGUSR1."""
    try:
        torchrun()
    except SignalException as stop:
        return PREEMPTED if stop.sigval in (signal.SIGTERM, signal.SIGUSR1) else 128 + stop.sigval
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        print(error, file=sys.stderr)
        return code if code > 0 else 128 - code
    return 0


if __name__ == '__main__':
    sys.exit(main())
