"""Which imports make a config one of mmengine's pure Python style."""
import sys

from mmengine.config import config, utils


def know_standard_library() -> None:
    """Let mmengine take all of Python's standard library as such: a config that imports it stays in the text style.

    mmengine 0.10 compares paths; these differ behind symbolic links, and frozen modules (`os`, Python 3.11) have none.
    """
    config._is_builtin_module = utils._is_builtin_module = _is_builtin_module


def _is_builtin_module(module_name: str) -> bool:
    return module_name.startswith('mmengine.config') or module_name.partition('.')[0] in sys.stdlib_module_names
