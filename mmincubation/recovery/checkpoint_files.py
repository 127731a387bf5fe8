"""Write checkpoints without a copy in memory, seal them with a digest, and find them again."""
import hashlib
import re
import zipfile
from pathlib import Path

import torch

from mmincubation.checkpoints import CheckpointError, read_tensors, sha256_of
from mmincubation.checkpoints.files import nbytes, writing
from mmincubation.checkpoints.kinds import kind_of

POINTER = 'last_checkpoint'  # mmengine's: it holds the path of the newest checkpoint
USUAL = ('epoch_*.pth', 'iter_*.pth')
STEP = re.compile(r'(.*?)(\d+)(\.\w+)')
writing_portably = False


def _on_the_cpu(storage) -> str | None:
    return 'cpu' if writing_portably else None


# `torch.save` brings tensors from a GPU to the CPU one at a time, but notes where they were, and a machine without a
# GPU then refuses the file. Our checkpoints say `cpu`, as mmengine's do, which copies all of them first for that.
torch.serialization.register_package(0, _on_the_cpu, lambda storage, location: None)


def digest_file(path: str | Path) -> Path:
    """Return the path of the file with a checkpoint's digest, in the format of `sha256sum --check`."""
    return Path(f'{path}.sha256')


def write_checkpoint(path: str | Path, content: dict) -> None:
    """Write `content` atomically with `torch.save`, and its SHA-256 beside it; one tensor at a time leaves the GPU.

    While a file of this name is replaced it has no digest, because a digest of other bytes would condemn a good file.

    Raises:
        CheckpointError: the disk is full or refuses the write; an older file of this name is unchanged.
    """
    path, size = Path(path), nbytes(content)
    with writing(path, size) as tmp:
        with open(tmp, 'wb') as file:
            sha256 = stream(content, file)
        digest_file(path).unlink(missing_ok=True)
    with writing(digest_file(path), 128) as tmp:
        tmp.write_text(f'{sha256}  {path.name}\n')


def stream(content: dict, file) -> str:
    """Write `content` with `torch.save` into an open binary file; return the SHA-256 of the bytes written.

    Raises:
        OSError: writing to the file failed.
    """
    global writing_portably
    out, writing_portably = _Hashing(file), True
    try:
        torch.save(content, out)
    except RuntimeError as error:  # torch hides what stopped it behind its own complaint
        raise out.error or error from None
    finally:
        writing_portably = False
    return out.sha256.hexdigest()


class _Hashing:
    """Pass the bytes that `torch.save` writes on to a file and add them to a digest."""

    def __init__(self, file) -> None:
        self.file, self.sha256, self.error = file, hashlib.sha256(), None

    def write(self, data) -> int:
        try:
            self.sha256.update(data)
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def point_to(work_dir: str | Path, path: str | Path) -> None:
    """Name `path` in `last_checkpoint` as the run's newest checkpoint."""
    with writing(Path(work_dir) / POINTER, 4096) as tmp:
        tmp.write_text(str(path))


def remove_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint, then its digest."""
    Path(path).unlink(missing_ok=True)
    digest_file(path).unlink(missing_ok=True)


def damage(path: str | Path) -> str | None:
    """Read a checkpoint completely; return what is wrong with it, None if nothing is.

    Its bytes must have the digest stored beside it. A checkpoint without a digest, for example one of mmengine, is
    compared with the checksums that its zip file has of each tensor, or read if it has none.
    """
    path = Path(path)
    try:
        kind = kind_of(path)
        if stored := _stored_digest(path):
            same = stored == sha256_of(path)
            return None if same else f'is damaged: its bytes do not have the SHA-256 in {digest_file(path).name}'
        if kind != 'archive':
            return read_tensors(path) and None
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
        return bad and f'is damaged at {bad}'
    except CheckpointError as error:
        return str(error).removeprefix(str(path)).partition(';')[0].strip(' :')
    except Exception as error:  # a damaged zip directory raises anything
        return f'is damaged ({type(error).__name__}: {error})'


def _stored_digest(path: Path) -> str | None:
    file = digest_file(path)
    found = re.match(rb'([0-9a-f]{64}) ', file.read_bytes()) if file.is_file() else None
    return found[1].decode() if found else None


def newest_complete(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint, None if there is none; and a line for each damaged newer one.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    problems = []
    for path in checkpoints_of(work_dir):
        if (problem := damage(path)) is None:
            return path, [f'{line}; not used, the run goes on from {path}' for line in problems]
        problems.append(f'{path} {problem}')
    if problems:
        raise CheckpointError(f'no checkpoint of {work_dir} can be resumed: {"; ".join(problems)}. Nothing was '
                              'changed: give --resume PATH, or begin anew in another --work-dir')
    return None, []


def checkpoints_of(work_dir: str | Path) -> list[Path]:
    """Return the checkpoints that a run can resume from, newest first, damaged ones included.

    The newest is the one that `last_checkpoint` names, or one written later by a process that was killed before it
    could name it. Files of more steps that are older belong to an earlier run in this folder. Best checkpoints have no
    optimiser and do not count. If no file is named, the time of writing decides.
    """
    pointer = Path(work_dir) / POINTER
    named = _named(pointer)
    kind, step = _kind_and_step(named) if named else ('', 0)
    since = pointer.stat().st_mtime_ns if named else 0
    found = {named: None} if named else {}  # a dict keeps the order
    folder = (named or pointer).parent
    for path in folder.iterdir() if folder.is_dir() else ():
        own, steps = _kind_and_step(path)
        if own == kind and (steps <= step or _written(path) > since) or own != kind and own in USUAL:
            found[path] = None
    return sorted(found, key=lambda p: _order(p, kind), reverse=True)


def _order(path: Path, kind: str) -> tuple:
    own, step = _kind_and_step(path)
    return (True, step, 0) if own == kind else (False, _written(path), step)


def _kind_and_step(path: Path) -> tuple[str, int]:
    """Return the pattern and the number of a file name: `epoch_12.pth` gives ('epoch_*.pth', 12)."""
    match = STEP.fullmatch(path.name)
    return (f'{match[1]}*{match[3]}', int(match[2])) if match else (path.name, 0)


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _named(pointer: Path) -> Path | None:
    """Return the file that `last_checkpoint` names, also in a work dir that was moved; None if it names nothing."""
    text = pointer.read_bytes().decode(errors='replace').strip() if pointer.is_file() else ''
    if not text or '\0' in text or '\n' in text:
        return None
    path, beside = Path(text), pointer.with_name(Path(text).name)
    return path if len(path.parts) > 1 and path.parent.is_dir() and not beside.exists() else beside
