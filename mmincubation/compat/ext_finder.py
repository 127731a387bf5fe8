"""Import `mmcv._ext` from `mmincubation.compat.mmcv_ext` if mmcv has no compiled module."""
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

EXT_NAME = 'mmcv._ext'
EXT_FILE = Path(__file__).with_name('mmcv_ext.py')


class MmcvExtFinder(MetaPathFinder):
    """Find `mmcv._ext`, and no other module, in our source file, which is read only if mmcv imports it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of `mmcv._ext`, and None for any other name."""
        return spec_from_file_location(EXT_NAME, EXT_FILE) if fullname == EXT_NAME else None


def install() -> None:
    """Append the finder to `sys.meta_path` once. It is the last one, so a compiled `mmcv._ext` is preferred."""
    if not any(isinstance(finder, MmcvExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())
