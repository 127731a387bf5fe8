"""Lock a work dir for one run; the lock ends with its process."""
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mmengine.logging import print_log

from mmincubation.errors import ConfigError, clean

LOCK = '.run.lock'
LONGEST = 4096  # bytes of a lock file that are read
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_descriptors: set[int] = set()  # of the locks that this process holds


def _leave_locks_to_the_parent() -> None:
    """Close the locks in a forked loader worker: a worker that outlives a killed run must not keep them."""
    for descriptor in _descriptors:
        os.close(descriptor)  # the parent's lock stays: closing a copy does not unlock
    _descriptors.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


@contextmanager
def lock(work_dir: str | Path, shared: str | Path | None = None) -> Iterator[None]:
    """Lock `work_dir` against every other run while the context is open.

    `shared` is the folder of the run that several phases belong to: runs of single phases share it, a run of all
    phases does not.

    Two things identify the owner. The kernel releases flock when the process ends, on many network file systems for
    all machines. The text of the file (pid, its start, machine) names the owner in the message, and decides on file
    systems without flock.

    Raises:
        ConfigError: another run has the lock, and nothing was written but the lock file; or the folder cannot be made.
    """
    with ExitStack() as stack:
        if shared is not None:
            stack.enter_context(_locked(Path(shared) / LOCK, fcntl.LOCK_SH))
        stack.enter_context(_locked(Path(work_dir) / LOCK, fcntl.LOCK_EX))
        yield


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'the work dir {path.parent} cannot be made ({error.strerror}): give another, by --work-dir '
                          'or work_dir') from error
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _descriptors.add(descriptor)
    try:
        free, owner = _lock(descriptor, kind), _owner(descriptor)
        _refuse_if_owned(path, free, owner)
        if kind == fcntl.LOCK_EX:
            _write(descriptor, json.dumps(_myself()))
        try:
            yield
        finally:
            if kind == fcntl.LOCK_EX:
                _write(descriptor, '')
    finally:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool | None:
    """Return whether the lock was free and is ours now; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return None
    return True


def _refuse_if_owned(path: Path, free: bool | None, owner: dict | None) -> None:
    """Take over from an owner that is gone and log it; raise ConfigError if it runs or might run.

    A free lock has no owner, even if the file names a living one: it came here in a copy of that one's folder.
    """
    who = f'pid {owner["pid"]} on {owner["host"]} since {owner["since"]}' if owner else 'a run of one of its phases'
    local = owner is not None and owner['machine'] == _machine()
    lives = local and owner['start'] and owner['start'] == _start_of(owner['pid'])
    if free is False or free is None and lives:
        stop = f'stop it (`kill {owner["pid"]}`)' if local else 'stop it'
        raise ConfigError(f'{path.parent} is in use: {who}; wait for it, {stop}, or give another --work-dir')
    if owner is None or lives:
        return
    if free is None and not (local and owner['start']):  # neither the kernel nor the process table knows
        raise ConfigError(f'{path.parent} is in use or was left by a killed run: {who}, and its file system has no '
                          f'locks; if that run is gone, delete {path}')
    print_log(f'{path.parent}: taken over from {who}, which is gone', logger='current')


def _owner(descriptor: int) -> dict | None:
    """Return the content of the lock file; None if it is empty or damaged, for example half of a line."""
    try:
        owner = json.loads(os.pread(descriptor, LONGEST, 0))
        return dict(pid=int(owner['pid']), start=int(owner['start']), since=_word(owner['since']),
                    host=_word(owner['host']), machine=_word(owner['machine']))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _word(text) -> str:
    return clean(str(text))


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
    os.fsync(descriptor)


def _myself() -> dict:
    now = datetime.now(UTC).isoformat(timespec='seconds')
    return dict(pid=os.getpid(), start=_start_of(os.getpid()), since=now, host=_word(socket.gethostname()),
                machine=_machine())


def _machine() -> str:
    """Return a text that identifies this boot of this machine and its process namespace."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{socket.gethostname()} {boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return _word(socket.gethostname())


def _start_of(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 if there is none or it cannot be read.

    A pid that was given to a new process has another start. A zombie owns nothing any more.
    """
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0
    return int(fields[19]) if fields[0] not in 'ZX' else 0
