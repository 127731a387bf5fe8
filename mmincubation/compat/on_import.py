"""Do something as soon as another package's module has been imported, and import nothing for it."""
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class ImportListener(MetaPathFinder):
    """Find one module by the other finders, and call `act` when it has been executed."""

    def __init__(self, name: str, act: Callable[[], None]):
        self.name, self.act = name, act

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders have for the module, and None for any other name."""
        if fullname != self.name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, 'find_spec')]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self.act()

            spec.loader.exec_module = exec_module
        return spec


def after_import(name: str, act: Callable[[], None]) -> None:
    """Call `act` after the module `name` has been imported: now, if it has been already."""
    if name in sys.modules:
        act()
    elif not any(isinstance(finder, ImportListener) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, ImportListener(name, act))
