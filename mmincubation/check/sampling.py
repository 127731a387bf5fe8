"""Choose how many files of a data set a check reads."""
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

SAMPLE = 200  # files of one kind
SECONDS = 8.  # for the files of one kind


class Sampling:
    """Read the same sample of files at each call, for at most `seconds`, or every file (`full`).

    `sample` is the number of files of one kind.
    """

    def __init__(self, full: bool = False, sample: int = SAMPLE, seconds: float = SECONDS):
        self.full, self.sample, self.seconds = full, sample, seconds

    def inspect(self, items: Sequence, look: Callable) -> tuple[list[tuple], str]:
        """Return (item, look(item)) for each item in the sample, and a text that says how many there were."""
        chosen = items
        if not self.full and len(items) > self.sample:
            chosen = [items[i] for i in sorted(random.Random(0).sample(range(len(items)), self.sample))]
        seen = list(self._within_time(chosen, look))
        return seen, share(len(seen), len(items))

    def _within_time(self, items: Iterable, look: Callable) -> Iterator[tuple]:
        end = None if self.full else monotonic() + self.seconds
        items = list(items)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and disks leave Python's lock alone
            for start in range(0, len(items), 64):
                if end and monotonic() > end:
                    return
                chunk = items[start:start + 64]
                yield from zip(chunk, pool.map(look, chunk), strict=True)


def share(seen: int, total: int) -> str:
    """Return a text such as `200 of 8,000 (2.5 %; --full looks at all)`."""
    if seen == total:
        return f'all {total:,}'
    return f'{seen:,} of {total:,} ({100 * seen / max(total, 1):.2g} %; --full looks at all)'


def files_below(folder: str | Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it; links are followed."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        rest = os.path.relpath(where, folder)
        yield from (name if rest == '.' else os.path.join(rest, name) for name in sorted(names))
