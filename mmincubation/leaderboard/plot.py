"""Plot each validation's accuracy against the cost up to there, one curve for each row."""
from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean

from mmincubation.errors import clean
from mmincubation.result import METRICS

from .collect import Run
from .rows import Row, is_final, merge_seeds, points

# Okabe and Ito's colours, told apart by the colour-blind too; with 8 markers, so that 56 rows differ.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = 'osD^vP*X'
FINAL = dict(linewidth=1.8, markersize=5)
THIN = dict(linewidth=1, markersize=3.5)  # one of several seeds
LIGHT = dict(linewidth=1, markersize=3, linestyle='--', alpha=.45)
MARKED = 12  # markers on a curve, about
COSTS = {'block_forwards': 'block-forwards (transformer blocks x images)', 'images': 'images seen',
         'seconds': 'device-seconds'}
NAME_LIMIT = 40  # characters
# Where the name of a phase may stand, in points from its last validation: the first free place is taken.
PLACES = ((0, 6), (0, -6), (7, 0), (-7, 0), (7, 7), (-7, 7), (7, -7), (-7, -7), (0, 16), (0, -16))
NEAR = 15  # pixels within which one name is enough for a phase that several rows have


@dataclass(frozen=True)
class Spot:
    """Hold one validation: the cost up to there, and its value in percent with the lowest and highest of the seeds."""

    phase: str
    final: bool
    cost: float
    value: float
    low: float
    high: float


def plot_costs(runs: Iterable[Run]) -> list[bytes]:
    """Return one PNG for each task, model and data that has a run of two or more validations."""
    pictures = []
    for _, same in groupby(merge_seeds(runs), key=lambda row: row.group):
        rows = list(same)
        if any(len(spots(run, cost_of(rows))) > 1 for row in rows for run in row.runs):
            buffer = io.BytesIO()
            # Without the version of matplotlib, which would make the bytes differ.
            cost_figure(rows).savefig(buffer, format='png', metadata={'Software': None})
            pictures.append(buffer.getvalue())
    return pictures


def cost_of(rows: list[Row]) -> str:
    """Return the cost that all rows of a plot have counted: block-forwards, or images of a dense task, or seconds."""
    if rows[0].task != 'classification':
        return 'images'
    phases = [phase for row in rows for run in row.runs for phase in run.result['phases']]
    return 'seconds' if any(phase['block_forwards'] is None for phase in phases) else 'block_forwards'


def spots(run: Run, cost: str) -> list[Spot]:
    """Return the validations of a run that measured its task's main metric, in order."""
    _, key, factor = METRICS[run.task][0]
    return [Spot(clean(phase['name']), is_final(run, phase), at, *[factor * value] * 3)
            for phase, at, value in points(run, cost, key)]


def curves(row: Row, cost: str) -> list[list[Spot]]:
    """Return the mean curve of a row, or the curve of each run if they were not validated at the same costs."""
    runs = [found for run in row.runs if (found := spots(run, cost))]
    places = {tuple((spot.phase, spot.final, spot.cost) for spot in run) for run in runs}
    if len(places) != 1:
        return runs
    values = [[spot.value for spot in same] for same in zip(*runs, strict=True)]
    return [[replace(spot, value=fmean(own), low=min(own), high=max(own))
             for spot, own in zip(runs[0], values, strict=True)]]


@dataclass(frozen=True)
class Drawn:
    """Hold a row, the curves that show it, and their colour and marker."""

    row: Row
    lines: list[list[Spot]]
    look: dict[str, str]


def cost_figure(rows: list[Row]):
    """Return the figure of rows that share task, model and data."""
    # Imported here: it takes most of a second. Figure without pyplot: no window system, no global state.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    cost, metric = cost_of(rows), METRICS[rows[0].task][0][0]
    found = [(row, lines) for row in rows if (lines := curves(row, cost))]
    drawn = [Drawn(row, lines, dict(color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)]))
             for i, (row, lines) in enumerate(found)]
    # parse_math: a `$` in a name is a character, not the start of a formula
    with matplotlib.rc_context({'text.parse_math': False, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure = Figure(figsize=(11, max(5.5, 1.5 + .25 * len(drawn))), dpi=140, layout='constrained')
        axes = figure.add_subplot(xlabel=cost_label(rows, cost))
        axes.xaxis.set_major_formatter(EngFormatter())
        names = f'{shortened(rows[0].model)}, {shortened(rows[0].data)}'
        axes.set_title(f'{names}: {metric} at each validation', loc='left')
        axes.grid(alpha=.25)
        for each in drawn:
            draw_curves(axes, each)
        set_limits(axes, [spot.low for each in drawn for line in each.lines for spot in line], metric)
        draw_legend(axes, drawn)
        name_phases(figure, axes, drawn)
    return figure


def shortened(text: str) -> str:
    """Return a name that leaves room for the curves."""
    text = clean(text)
    return text if len(text) <= NAME_LIMIT else f'{text[:NAME_LIMIT - 3]}...'


def cost_label(rows: list[Row], cost: str) -> str:
    """Return the title of the cost axis."""
    machines = {machine for row in rows for machine in row.machines()}
    return COSTS[cost] + (', on several machines' if cost == 'seconds' and len(machines) > 1 else '')


def draw_curves(axes, drawn: Drawn) -> None:
    """Draw the curves of a row: solid for the whole model, light and dashed for each other model of its phases."""
    for line in drawn.lines:
        for final, piece in pieces(line):
            costs = [spot.cost for spot in piece]
            step = -(-len(piece) // MARKED)
            axes.plot(costs, [spot.value for spot in piece], markevery=((len(piece) - 1) % step, step),
                      **drawn.look, **(LIGHT if not final else FINAL if len(drawn.lines) == 1 else THIN))
            if final and any(spot.low < spot.high for spot in piece):
                axes.fill_between(costs, [spot.low for spot in piece], [spot.high for spot in piece], alpha=.18,
                                  linewidth=0, color=drawn.look['color'])


def pieces(line: list[Spot]) -> list[tuple[bool, list[Spot]]]:
    """Cut a curve where the model changes; the parts of the whole model are one piece."""
    return [(final, list(own)) for (final, _), own in groupby(
        line, key=lambda spot: (spot.final, '' if spot.final else spot.phase))]


def set_limits(axes, values: list[float], metric: str) -> None:
    """Let the axes begin at 0; if all values are above 50 % the value axis begins below them, and its title says so."""
    bottom = (min(values) - 1) // 10 * 10 if min(values) > 50 else 0
    axes.set_ylim(bottom=bottom)
    axes.set_xlim(left=0)
    axes.set_ylabel(f'{metric} (%)' + (f', the axis begins at {bottom:.0f}' if bottom else ''))


def draw_legend(axes, drawn: list[Drawn]) -> None:
    """Draw the legend beside the curves: each row with its final value, then what the kinds of lines are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # The space before a name: matplotlib hides names that begin with an underscore.
    handles = [Line2D([], [], label=f' {shortened(each.row.label)}: {each.row.main() or "-"}', **each.look, **FINAL)
               for each in drawn]
    every = [spot for each in drawn for line in each.lines for spot in line]
    if not all(spot.final for spot in every):
        handles.append(Line2D([], [], label=' meta model and hybrids', color='#555555', **LIGHT))
    if any(spot.low < spot.high for spot in every if spot.final):
        handles.append(Patch(label=' mean, lowest and highest seed', color='#555555', alpha=.18, linewidth=0))
    if any(len(each.lines) > 1 for each in drawn):
        handles.append(Line2D([], [], label=' one line for each seed', color='#555555', **THIN))
    # Outside of the curves, so that it covers none of them.
    axes.legend(handles=handles, loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)


def name_phases(figure, axes, drawn: list[Drawn]) -> None:
    """Name the phases of rows that have several, each at its last validation, where there is a free place for it."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # gives the axes their place; then they stay, so that the names do too
    figure.set_layout_engine('none')
    vertices = axes.transData.transform([(spot.cost, spot.value) for each in drawn
                                         for line in each.lines for spot in line])
    taken: list[Bbox] = []
    named: list[tuple[str, float, float]] = []
    for each in drawn:
        ends = {spot.phase: spot for spot in each.lines[0]}
        for phase, spot in ends.items() if len(ends) > 1 else ():
            x, y = axes.transData.transform((spot.cost, spot.value))
            if not any(name == phase and abs(x - at) + abs(y - up) < NEAR for name, at, up in named):
                named.append((phase, x, y))
                place_name(axes, shortened(phase), spot, each.look['color'], vertices, taken)


def place_name(axes, name: str, spot: Spot, colour: str, vertices, taken: list) -> None:
    """Write a name beside a validation where it covers no other name, at best no validation either, else nowhere."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    label = axes.annotate(name, (spot.cost, spot.value), PLACES[0], textcoords='offset points', fontsize=7.5,
                          color=[.7 * part for part in to_rgb(colour)])
    label.set_path_effects([withStroke(linewidth=2, foreground='white')])
    free = []
    for x, y in PLACES:
        label.xyann = (x, y)
        label.set(ha='left' if x > 0 else 'right' if x < 0 else 'center',
                  va='bottom' if y > 0 else 'top' if y < 0 else 'center')
        box = label.get_window_extent().padded(1)
        inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and axes.bbox.containsy(box.y0) \
            and axes.bbox.containsy(box.y1)
        if inside and not box.count_overlaps(taken):
            free.append((box.count_contains(vertices), len(free), box, (x, y), label.get_ha(), label.get_va()))
    if not free:
        label.remove()
        return
    _, _, box, label.xyann, ha, va = min(free, key=lambda found: found[:2])
    label.set(ha=ha, va=va)
    taken.append(box)
