"""Serves the module `mmcv._ext` from `mmincubation.compat.mmcv_ext` where mmcv has no compiled one."""
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
    """Finds `mmcv._ext`, and nothing else, in our own source file, which is read only when mmcv asks for it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Answer for `mmcv._ext`; None for any other name, which leaves the import system as it was."""
        return spec_from_file_location(EXT_NAME, EXT_FILE) if fullname == EXT_NAME else None


def install() -> None:
    """Append the finder to `sys.meta_path`, once: it stands last, so an installed compiled `mmcv._ext` wins."""
    if not any(isinstance(finder, MmcvExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())
