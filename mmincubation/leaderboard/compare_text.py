"""Show a comparison of two checkpoints on a terminal."""
from __future__ import annotations

from typing import Any

from mmincubation.errors import clean

SHOWN = 5
WHAT = '''\
The interval says how much B - A depends on the images that were taken: a paired bootstrap over images. There is one
training each, so it does not cover the spread between seeds. Where nothing differs, one line in 20 excludes 0.'''
ERRORS = 'points of AP at IoU 0.5 that each costs; FP: all false results, FN: all missed objects'


def to_text(found: dict[str, Any], name_a: str, name_b: str) -> str:
    """Return the comparison as text; the names say what A and B are."""
    lines = [f'A: {clean(name_a)}', f'B: {clean(name_b)}',
             f'{found["task"]}, {found["images"]:,} images, {found["classes"]:,} classes, {found["draws"]:,} draws']
    lines += [f'note: {clean(note)}' for note in found['notes']]
    rows = [[*_cells(line), _interval(line), _verdict(line)] for line in found['metrics']]
    lines += ['', *_aligned([['', 'A', 'B', 'B - A', '95 % interval', ''], *rows]), '', *WHAT.splitlines()]
    for title, table in found['tables'].items():
        errors = title.endswith('(TIDE)')
        shown = table if errors else most_different(table)
        lines += ['', f'{title}: {ERRORS if errors else _share(shown, table)}']
        lines += _aligned([['', 'A', 'B', 'B - A'], *map(_cells, shown)]) if shown else []
    return '\n'.join(line.rstrip() for line in lines) + '\n'


def most_different(table: list[dict]) -> list[dict]:
    """Return the five rows that gain most and the five that lose most, from the largest gain to the largest loss."""
    known = sorted((line for line in table if line['difference']), key=lambda line: -line['difference'])
    gains = [line for line in known if line['difference'] > 0]
    losses = [line for line in known if line['difference'] < 0]
    return gains[:SHOWN] + losses[-SHOWN:]


def _share(shown: list[dict], table: list[dict]) -> str:
    different = sum(bool(line['difference']) for line in table)
    return f'{len(shown)} of the {different} that differ, of {len(table)}' if shown else f'none of {len(table)} differs'


def _cells(line: dict) -> list[str]:
    return [clean(line['name']), *('-' if line[key] is None else f'{line[key]:.1f}' for key in ('a', 'b')),
            _signed(line['difference'])]


def _signed(value: float | None) -> str:
    return '-' if value is None else f'{value:+.2f}'


def _interval(line: dict) -> str:
    return '-' if line['low'] is None else f'{_signed(line["low"])} to {_signed(line["high"])}'


def _verdict(line: dict) -> str:
    if line['low'] is None:
        return 'not measured' if line['difference'] is None else 'too few images with such objects'
    return f'{"B" if line["low"] > 0 else "A"} is better' if line['supported'] else 'no difference shown'


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return lines whose columns are as wide as their cells: first and last to the left, others to the right."""
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
    return ['  '.join(cell.ljust(width) if i in (0, 5) else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(cells, widths, strict=True))) for cells in rows]
