"""Find the checker of a data set's type; a new layout registers one with `@register_checker('ItsType')`."""
from collections.abc import Callable
from dataclasses import dataclass, field

from mmincubation.config.signatures import resolve

from .report import Report
from .sampling import Sampling

CHECKERS: dict[str, Callable] = {}


@dataclass
class DatasetCheck:
    """Hold what a checker needs: the data set's dict, its dotted `place` in the config, the number of classes, the
    report.

    `sampling` says how many files to read. `num_classes` is the model's, None if it does not say; `size` is the side
    of the images that a classifier takes.
    """
    place: str
    dataset: dict
    scope: str
    num_classes: int | None
    report: Report
    sampling: Sampling = field(default_factory=Sampling)
    size: int | None = None

    @property
    def options(self) -> dict:
        """The keys of the data set's dict over the defaults of the class that it names and of its bases."""
        import inspect
        defaults = {}
        for _, cls in resolve(self.dataset['type'], self.scope)[:1]:
            for base in reversed(getattr(cls, '__mro__', ())):
                init = base.__dict__.get('__init__')
                found = inspect.signature(init).parameters.values() if inspect.isfunction(init) else ()
                defaults |= {p.name: p.default for p in found if p.default is not p.empty}
            defaults['METAINFO'] = getattr(cls, 'METAINFO', {})
        return defaults | dict(self.dataset)

    @property
    def classes(self) -> tuple | None:
        """The class names in the config, else those of the data set's class, else None."""
        options = self.options
        named = (options.get('metainfo') or {}).get('classes') or (options.get('METAINFO') or {}).get('classes')
        return tuple(named) if isinstance(named, list | tuple) else None

    def problem(self, what: str, remedy: str, example: str | None = None) -> None:
        """Report a problem of this data set."""
        self.report.problem(self.place, what, remedy, example)

    def warn_of_turned(self, turned: list[str], read: int) -> None:
        """Say which of the images read a tag turns, where no size shows whether their annotations are turned too."""
        if turned:
            self.report.warn(f'{self.place}: {len(turned)} of {read} images read are turned or mirrored by their '
                             f'EXIF tag ({turned[0]}): look with tools/browse.py whether their annotations are too')


@dataclass
class DatasetSummary:
    """Hold what a checker found: the data set itself, as its own code has read it, and a text for the report.

    `objects` is the number of objects of each class, or of images where an image has one class.
    """
    built: object
    text: str
    objects: dict[str, int] | None = None


Checker = Callable[[DatasetCheck], DatasetSummary | None]


def register_checker(*types: str) -> Callable:
    """Register a checker for data sets of these types (without their scope).

    It is a function `DatasetCheck -> DatasetSummary | None`; None: it reported why there is nothing to sum up.
    """

    def register(checker: Checker) -> Checker:
        CHECKERS.update(dict.fromkeys(types, checker))
        return checker

    return register


def checker_of(name: str) -> Checker | None:
    """Return the checker of a data set's type, with or without a scope; None if there is none."""
    return CHECKERS.get(str(name).rpartition('.')[2])
