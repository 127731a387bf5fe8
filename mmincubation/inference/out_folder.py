"""The folder that predictions are written to: what lies there and is not ours is never replaced."""
from pathlib import Path, PurePosixPath

from mmincubation.atomic import write_atomic
from mmincubation.errors import ConfigError

LIST = 'written_by_predict.txt'  # the files of the last prediction, so that the next one may replace them


class OutFolder:
    """A folder for files of these names, paths with `/` relative to it.

    A file is replaced only if an earlier prediction wrote it. `finish` removes what that left beside these files.

    Raises:
        ConfigError: another file has one of the names, or the folder cannot be written.
    """

    def __init__(self, folder: Path, names: list[str]):
        self.folder, self.names = folder, sorted([*names, LIST])
        known = folder / LIST
        text = known.read_bytes().decode('utf-8', 'surrogateescape') if known.is_file() else None
        self.earlier = set() if text is None else {LIST, *text.split('\n')}
        if foreign := [name for name in self.names if name not in self.earlier and (folder / name).exists()]:
            raise ConfigError(f'{folder / foreign[0]} is there already, and no prediction has written it; give another '
                              '--out')
        self._list({*self.names, *self.earlier})

    def write(self, name: str, content: bytes) -> None:
        """Write a file; a list (no folder in its name) whole, a picture without waiting for the disk.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            if '/' not in name:
                write_atomic(self.folder / name, content)
            else:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
        except OSError as error:
            raise ConfigError(f'{self.folder / name}: cannot be written ({error.strerror}); give another --out, or '
                              'make room') from error

    def finish(self) -> None:
        """Remove the files of an earlier prediction that are none of this one."""
        for name in sorted(self.earlier - {*self.names}):
            path = self.folder / name
            if _is_below(name) and path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
                path.unlink()
        self._list(self.names)

    def _list(self, names) -> None:
        text = '\n'.join(sorted(name for name in names if name))
        self.write(LIST, text.encode('utf-8', 'surrogateescape'))


def _is_below(name: str) -> bool:
    """Whether a line of the list, which anybody may have written, is the name of a file in the folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and '..' not in path.parts
