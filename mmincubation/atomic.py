"""Files that are whole or not there: whatever a run leaves behind is written through here."""
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STRAY = re.compile(r'\..+\.(?P<host>[^.]+)-(?P<pid>\d+)\.tmp')
DAY = 24 * 3600


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place once it is written, or goes if anything fails.

    A reader, a crash and a power cut find the old file or the whole new one: the bytes are on the disk before the name
    changes, and the name is before this ends. The folder is made if there is none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{_host()}-{os.getpid()}.tmp')
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the umask has it; safetensors would leave the file to its owner alone
        yield partial
        partial.chmod(mode)
        with open(partial, 'r+b') as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def sync_folder(folder: str | os.PathLike) -> None:
    """Bring the names in a folder to the disk, on file systems that know how."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def remove_strays(folder: str | os.PathLike, shared: bool = False) -> list[Path]:
    """Remove the temporary files that killed writers left in a folder; returns them.

    The folder must be the caller's own. In a `shared` one, what writers at work may be writing stays: files of this
    host's living processes, and of other hosts' for a day.
    """
    found = [path for path in Path(folder).glob('.*.tmp') if (name := STRAY.fullmatch(path.name))
             and not (shared and _may_be_written(path, name['host'], int(name['pid'])))]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _host() -> str:
    return re.sub('[^A-Za-z0-9_]', '_', socket.gethostname()) or 'host'


def _may_be_written(path: Path, host: str, pid: int) -> bool:
    try:
        if host != _host():
            return time.time() - path.stat().st_mtime < DAY
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process, alive
        pass
    return True
