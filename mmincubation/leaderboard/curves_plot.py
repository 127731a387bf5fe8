"""Draw what runs have logged: a panel for each key, a line for each run, a mark where a phase begins."""
from __future__ import annotations

import io
from itertools import groupby

from mmincubation.errors import clean

from .curves import Curve
from .plot import COLOURS, MARKERS, shortened

ROOM = .04  # of the axis, which the name of a phase needs
ALONE = 40  # points on a line up to which each is marked


def curves_picture(found: list[Curve], keys: list[str], form: str) -> bytes:
    """Return the picture, a PNG or an SVG; equal runs give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    # parse_math: a `$` in a name is a character; hashsalt: names inside of an SVG are random without it
    with matplotlib.rc_context({'text.parse_math': False, 'axes.spines.top': False, 'axes.spines.right': False,
                                'svg.hashsalt': '0'}):
        figure = Figure(figsize=(10, 1.2 + 2.4 * len(keys) + .18 * len(found)), dpi=140, layout='constrained')
        panels = figure.subplots(len(keys), sharex=True, squeeze=False)[:, 0]
        for key, axes in zip(keys, panels, strict=True):
            for i, curve in enumerate(found):
                draw_curve(axes, curve, key, dict(color=COLOURS[i % len(COLOURS)]), MARKERS[i % len(MARKERS)])
            mark_phases(axes, found, named=axes is panels[0])
            axes.set_ylabel(shortened(key))
            axes.grid(alpha=.25)
        panels[-1].set_xlabel('iterations')
        panels[-1].xaxis.set_major_formatter(EngFormatter())
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))  # 10 m would be a hundredth of an iteration
        panels[-1].set_xlim(left=0)
        draw_names(figure, found)
        figure.align_ylabels()
        buffer = io.BytesIO()
        # Without the version and the date, which would make the bytes differ.
        figure.savefig(buffer, format=form, metadata={'Software': None} if form == 'png' else {'Date': None})
    return buffer.getvalue()


def draw_curve(axes, curve: Curve, key: str, look: dict, marker: str) -> None:
    """Draw one key of a run; each phase is a line of its own, because it trains another network."""
    own = sorted((each for each in curve.logged if key in each.values), key=lambda each: (each.phase, each.kind))
    for _, same in groupby(own, key=lambda each: (each.phase, each.kind)):
        points = list(same)
        shape = dict(marker=marker, markersize=3.5) if len(points) <= ALONE else {}
        axes.plot([each.iteration for each in points], [each.values[key] for each in points], linewidth=1.3,
                  **look, **shape)


def mark_phases(axes, found: list[Curve], named: bool) -> None:
    """Draw a line where a phase begins, once for runs that share it; `named` also writes its name."""
    marks = dict.fromkeys((begin, end, phase) for curve in found for phase, begin, end in curve.phases())
    for begin, _, _ in marks:
        axes.axvline(begin, color='#888888', linewidth=.8, linestyle=':')
    places: dict[int, list[str]] = {}
    for begin, _, phase in marks:
        if phase not in places.setdefault(begin, []):
            places[begin].append(phase)
    last, room = -1., ROOM * max(end for curve in found for _, _, end in curve.phases()) if marks else 0
    for begin, phases in sorted(places.items()) if named else ():
        if last >= 0 and begin - last < room:
            continue
        last = begin
        name = shortened(' / '.join(phases))
        axes.annotate(name, (begin, 1), (2, 2), xycoords=('data', 'axes fraction'), textcoords='offset points',
                      fontsize=7, color='#555555', rotation=20, ha='left', va='bottom')


def draw_names(figure, found: list[Curve]) -> None:
    """Write the names of the runs above all panels."""
    from matplotlib.lines import Line2D

    # The space before a name: matplotlib hides names that begin with an underscore.
    handles = [Line2D([], [], label=f' {shortened(clean(curve.name))}', color=COLOURS[i % len(COLOURS)],
                      marker=MARKERS[i % len(MARKERS)], markersize=3.5) for i, curve in enumerate(found)]
    figure.legend(handles=handles, loc='outside upper left', ncols=min(3, len(found)), frameon=False, fontsize=9)
