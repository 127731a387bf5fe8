"""What the runs of a suite cost: seconds where they are known, else what the config says."""
import ast
import re
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean

from mmincubation.check.recipe import lengths
from mmincubation.models.on_meta import build_for_shapes
from mmincubation.result import ResultError, read_result

from .runs import Run
from .settings import Settings

# Ends of options that leave the cost as the header of the config states it.
SAME_COST = ('data_root', 'ann_file', 'batch_size', 'backbone.arch', 'init_cfg', 'checkpoint')
BYTES = 12  # of a float32 parameter and its two moments in a checkpoint


class Durations:
    """The seconds that runs take: those of earlier runs of the same config, else those that the suite file guesses."""

    def __init__(self, settings: Settings):
        self._measured: dict[str, list[float]] = defaultdict(list)
        for run in settings.suite.runs.values():
            try:
                found = [read_result(path) for path in run.results]
            except ResultError:
                continue
            if found:
                self.add(run, sum(result['device_seconds'] / result['devices'] for result in found))

    def add(self, run: Run, seconds: float) -> None:
        """Learn from a run that is finished."""
        self._measured[_kind(run)].append(seconds)

    def of(self, run: Run) -> float | None:
        """Return the expected seconds of a run; None if nothing tells."""
        measured = self._measured.get(_kind(run))
        return mean(measured) if measured else run.seconds or None

    def left(self, waiting: list[Run], running: list[tuple[Run, float]], jobs: int) -> str:
        """Return in words the time until all is done; runs at work come with the time at which they began."""
        expected, known = [self.of(run) for run in waiting], [(self.of(run), began) for run, began in running]
        # A run that takes longer than expected still needs some seconds.
        rest = [max(seconds - (time.monotonic() - began), 5) for seconds, began in known if seconds]
        total = max([(sum(rest) + sum(filter(None, expected))) / jobs, *rest])
        if None not in [*expected, *(seconds for seconds, _ in known)]:
            return f'about {clock(total)} left'
        return f'more than {clock(total)} left' if total else 'time left not known yet'

    def said(self, run: Run, settings: Settings) -> str:
        """Return the cost of a run in words."""
        if _kind(run) in self._measured:
            return f'about {clock(self.of(run))}, as measured'
        if run.seconds:
            return f'about {clock(run.seconds)}, as the suite says'
        if not run.config:
            return 'cost not known'
        phases = [(f'{part.iters:,} iterations' if part.iters else f'{part.epochs} epochs')
                  + f' of {part.phase}' * (part.phase != 'train')
                  for part in lengths(settings.of(run).cfg, None, settings.gpus)]
        same = all(key.startswith('experiment.') or key.endswith(SAME_COST) for key in run.options)
        header = header_cost(run.config) if same else ''
        return ', '.join(phases) + f"; its config's header: {header}" * bool(header)


def _kind(run: Run) -> str:
    return f'{run.config}{sorted(run.options.items())}' if run.config else f'{run.probe}{run.command}'


def header_cost(config: str) -> str:
    """Return what the header of one of our configs says about its cost; '' if it does not."""
    header = ast.get_docstring(ast.parse(Path(config).read_text())) or '' if config.endswith('.py') else ''
    found = re.search(r'^Cost: +(.*(?:\n +.*)*)', header, re.MULTILINE)
    return ' '.join(found[1].split()).partition(';')[0] if found else ''


def checkpoint_bytes(run: Run, settings: Settings) -> int:
    """Return the bytes of the checkpoints that a training keeps, and of the one that is being written; roughly."""
    cfg = settings.of(run).cfg
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    kept = max(hook.get('max_keep_ckpts', 1), 1) + bool(hook.get('save_best'))
    parameters = sum(tensor.numel() for tensor in build_for_shapes(cfg).parameters())
    return BYTES * parameters * (kept + 1)


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, above an hour with hours."""
    minutes, hours = int(seconds) // 60 % 60, int(seconds) // 3600
    return f'{hours}:{minutes:02d}:{int(seconds) % 60:02d}' if hours else f'{minutes}:{int(seconds) % 60:02d}'
