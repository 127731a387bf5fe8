"""Collect what a check finds and print it at the end in one piece."""
from dataclasses import dataclass, field

EXAMPLES = 3


@dataclass
class Problem:
    """Hold one kind of mistake at one place of the config, how often it occurs, and its remedy.

    A mistake that is a line already has neither place nor remedy.
    """
    place: str
    what: str
    remedy: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = ', ...' if self.count > len(self.examples) else ''
        seen = f' ({self.count}: {", ".join(self.examples)}{more})' if self.examples else ''
        place, remedy = self.place and f'{self.place}: ', self.remedy and f'; {self.remedy}'
        return f'{place}{self.what}{seen}{remedy}'


class Report:
    """Collect sections of plain lines, and problems; each kind of problem has a count and at most three examples."""

    def __init__(self):
        self.sections: list[tuple[str, list[str]]] = []
        self.warnings: list[str] = []
        self.skipped = False  # whether some data were not looked at
        self._problems: dict[tuple, Problem] = {}

    @property
    def problems(self) -> list[Problem]:
        """All problems, in the order in which they were found."""
        return list(self._problems.values())

    def section(self, title: str) -> None:
        """Begin a section with this title."""
        self.sections.append((title, []))

    def say(self, line: str) -> None:
        """Add a line to the current section."""
        self.sections[-1][1].append(line)

    def problem(self, place: str, what: str, remedy: str, example: str | None = None) -> None:
        """Count a problem; `example` names the file, or the id, where it occurs."""
        found = self._problems.setdefault((place, what, remedy), Problem(place, what, remedy))
        found.count += 1
        if example is not None and len(found.examples) < EXAMPLES:
            found.examples.append(example)

    def warn(self, line: str) -> None:
        """Add advice: what would run, and may not be what is meant."""
        self.warnings.append(line)

    def text(self) -> str:
        """Return all sections, then all warnings, then all problems."""
        lines = []
        for title, said in self.sections:
            lines += [title, *(f'  {line}' for line in said)]
        lines += _numbered('warning', self.warnings) + _numbered('problem', self.problems)
        if not self.problems:
            lines.append('No problem found in what was looked at; a part of the data was not.' if self.skipped else
                         'No problem found: this would run here.')
        return '\n'.join(lines)


def _numbered(what: str, items: list) -> list[str]:
    head = f'{len(items)} {what}{"s" * (len(items) > 1)}'
    return [head, *(f'  {i}. {item}' for i, item in enumerate(items, 1))] if items else []
