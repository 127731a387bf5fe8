"""Run torchrun and return the exit code of its ranks: `python -m mmincubation.engine.torchrun` takes its arguments.

torchrun itself ends with 1 whatever became of its ranks, so a scheduler could not tell a preempted run from a broken
one. torchrun sends the signals named by --signals_to_handle to every rank, and kills the ranks that are left after
TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds. Of ranks that have said why they end, torchrun says nothing more.
"""
import logging
import re
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from mmincubation.errors import DIVERGED, INTERRUPTED, PREEMPTED, PROCESS_LOST, quiet_interrupt

SAID = (2, DIVERGED, PROCESS_LOST, PREEMPTED, INTERRUPTED)  # the exit codes of ranks that print a line of their own
NOISE = re.compile(rf'closing signal|failed \(exitcode: ({"|".join(map(str, SAID))})\)')


def main() -> int:
    """Run torchrun; return the exit code of the rank that failed first.

    It is 75 after SIGTERM, SIGUSR1 or SIGHUP, and 130 after Ctrl-C. A rank that signal N has ended gives 128 + N.
    """
    logger = logging.getLogger('torch.distributed.elastic.multiprocessing.api')
    logger.addFilter(lambda record: not NOISE.search(record.getMessage()))
    try:
        torchrun()
    except SignalException as stop:
        return PREEMPTED if stop.sigval in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP) else 128 + stop.sigval
    except KeyboardInterrupt:  # before torchrun listens
        return INTERRUPTED
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code not in SAID:
            print(error, file=sys.stderr)
        return code if code > 0 else 128 - code
    return 0


if __name__ == '__main__':
    quiet_interrupt()
    sys.exit(main())
