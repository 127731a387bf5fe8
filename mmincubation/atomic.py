"""Write files atomically: a reader finds the old file or the complete new one. All files of a run are written so."""
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
    """Yield a temporary file beside `path`, which replaces `path` at the end, or is removed if anything fails.

    A reader finds the old file or the complete new one, also after a crash or a power cut: the content is on the disk
    before the file gets its name, and the name is on the disk before this returns. A missing folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{_host()}-{os.getpid()}.tmp')
    try:
        partial.touch()
        mode = partial.stat().st_mode  # of the umask; safetensors would make the file readable for its owner only
        yield partial
        partial.chmod(mode)
        with open(partial, 'r+b') as file:
            os.fsync(file.fileno())  # without it a power cut can leave the new name with old or no content
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old or the complete new content."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def sync_folder(folder: str | os.PathLike) -> None:
    """Write the names in a folder to the disk, where the file system supports it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def remove_strays(folder: str | os.PathLike, shared: bool = False) -> list[Path]:
    """Remove the temporary files that killed writers left in a folder, and return their paths.

    No other process may write to the folder, unless `shared` is true. Then files stay that may still be written: those
    of living processes of this host, and for a day those of other hosts.
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
        if host != _host():  # a process id of another host says nothing here, so the age decides
            return time.time() - path.stat().st_mtime < DAY
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process, alive
        pass
    return True
