"""Plot accuracy against cost, one curve for each classification run."""
from __future__ import annotations

import io
from itertools import accumulate, groupby

from mmincubation.result import METRICS

from .collect import Run, clean

# Okabe and Ito's colours, told apart by the colour-blind too.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = 'osD^vP*'


def plot_costs(runs: list[Run]) -> list[bytes]:
    """Return one PNG for each model and data set that has classification runs with a validated phase."""
    runs = [run for run in runs if run.task == 'classification' and curve(run, 'seconds')]
    return [plot_cost(list(same)) for _, same in groupby(runs, key=lambda run: run.group)]


def curve(run: Run, cost: str) -> list[tuple[float, float, str]]:
    """Return a point for each validated phase of a run: cost, top-1 in percent, and the phase's name.

    The cost is the sum from the begin of the run to the end of the phase.
    """
    phases, key = run.result['phases'], METRICS['classification'][0][1]
    ends = accumulate(phase[cost] for phase in phases)
    return [(end, phase['metrics'][key], clean(phase['name']))
            for end, phase in zip(ends, phases, strict=True) if phase['metrics'].get(key) is not None]


def plot_cost(runs: list[Run]) -> bytes:
    """Return a PNG of top-1 against block-forwards, or against device-seconds if a run did not count them."""
    # Imported here: it takes most of a second. Figure without pyplot: no window system, no global state.
    import matplotlib
    from matplotlib.figure import Figure

    counted = all(run.result['block_forwards'] is not None for run in runs)
    # parse_math: a `$` in a name is a character, not the start of a formula
    with matplotlib.rc_context({'text.parse_math': False, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure = Figure(figsize=(9, 5), layout='constrained')
        axes = figure.add_subplot(
            xlabel='block-forwards x images, in millions' if counted else 'device-seconds', ylabel='top-1 (%)')
        axes.set_title(clean(f'{runs[0].result["experiment"]["model"]}: top-1 at the end of each phase'), loc='left')
        draw_curves(axes, runs, counted)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format='png', dpi=120)
    return buffer.getvalue()


def draw_curves(axes, runs: list[Run], counted: bool) -> None:
    """Draw one curve for each run, in one colour for each method, and name its points."""
    methods = list(dict.fromkeys(run.result['experiment']['method'] for run in runs))
    for run in runs:
        index = methods.index(run.result['experiment']['method'])
        style = dict(color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)])
        points = curve(run, 'block_forwards' if counted else 'seconds')
        costs = [cost / (1e6 if counted else 1) for cost, _, _ in points]
        accuracies = [accuracy for _, accuracy, _ in points]
        name = f'{methods[index]}, seed {run.result["seed"]}: {accuracies[-1]:.1f}'
        # matplotlib hides names that begin with an underscore
        axes.plot(costs, accuracies, label=clean(name).lstrip('_'), **style)
        for x, y, (_, _, phase) in zip(costs, accuracies, points, strict=True):
            axes.annotate(phase, (x, y), (4, 5), textcoords='offset points', fontsize=7, color=style['color'])
