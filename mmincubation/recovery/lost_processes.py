"""Turn the death of another process into an error with a remedy, and end loader workers and processes."""
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed import DistError

from mmincubation.errors import ProcessLost

DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*?)[.\s]*$', re.MULTILINE)
# gloo's words; NCCL's watchdog ends the process itself.
DEAD_RANK = re.compile(r'gloo.*(Connection (closed|reset)|Broken pipe|[Tt]imed out|Connection refused)|connectFullMesh')


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn torch's error about a dead process of this run into a ProcessLost that says what to do.

    Raises:
        ProcessLost: a loader worker or another rank has died.
    """
    try:
        yield
    except (RuntimeError, DistError) as error:
        if found := DEAD_WORKER.search(str(error)):
            raise ProcessLost(
                f'DataLoader worker, pid {found[1]}, {found[2]}; if nobody killed it, memory ran out: lower '
                "the loader's num_workers or batch_size, or give more memory or shared memory (/dev/shm; docker: "
                '--shm-size). --resume goes on') from error
        if isinstance(error, DistError) or DEAD_RANK.search(str(error)):
            raise ProcessLost(
                f'another rank is gone or answers no more ({str(error).splitlines()[0][:160]}); what it said is above, '
                'nothing if it was killed. --resume goes on') from error
        raise


def end_workers() -> None:
    """Kill loader workers that still run: they ignore the SIGTERM by which an interpreter ends them."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's would call them dead workers
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
            child.join()
    signal.signal(signal.SIGCHLD, handler)


def leave(code: int) -> int:
    """Return `code`, or end the process with it if the process group uses gloo.

    In one run of ten, gloo's threads abort an interpreter that shuts down, which would change the exit code.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
