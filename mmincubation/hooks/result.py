"""Write `result.json` at the end of a run."""
from __future__ import annotations

import copy
import math
import re
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path

from mmengine.dist import get_world_size, master_only
from mmengine.runner import IterBasedTrainLoop

from mmincubation import provenance
from mmincubation.config.settings import recipe_of
from mmincubation.downstream.evidence import details_of, write_per_image
from mmincubation.incubation.phases import ASSEMBLED, WHOLE, phase_names
from mmincubation.registry import HOOKS
from mmincubation.result import (
    METRICS,
    PER_IMAGE,
    SCHEMA,
    Phase,
    Point,
    Result,
    ResultError,
    locked,
    read_result,
    require_experiment,
    write_result,
)
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import unwrap

from .cost import CostMeter, phase_name

MAIN = {key for metrics in METRICS.values() for _, key, _ in metrics}
NO_COST = dict(iters=0, images=0, block_forwards=0, seconds=0.)
KEPT = ('metrics', 'curves', 'notes', 'details', 'validated_at')  # in checkpoints
PRECISION = re.compile(r'(?:^|[/_])(?:m?AP|AR)(?:[@_]|$)|_precision$')  # of COCO, which gives -1 for no objects


@HOOKS.register_module()
class ResultHook(BaseHook):
    """Keep the last validation of each phase and write `<work_dir>/result.json` after training.

    The hook needs a CostMeter beside it and `experiment = dict(task=..., model=..., method=...)` in the config. A run
    of one phase keeps the other phases that an earlier run of the same config left in the file.
    """

    # After validation, logging and checkpoints: what they write (pictures, weights) belongs to the result.
    priority = 'LOWEST'
    needs_experiment = True  # read by config/hooks.py

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.metrics: dict[str, dict[str, float | None]] = {}
        self.curves: dict[str, list[Point]] = {}
        self.notes: dict[str, str] = {}
        self.details: dict[str, dict[str, float | None]] = {}
        self.validated_at = -1

    def before_train(self, runner) -> None:
        """Raise an error before the first step if the result could not be written after the last."""
        require_experiment(runner.cfg.get('experiment'))
        cost_meter(runner)
        if runner.iter == 0:
            self._begin()

    def before_train_epoch(self, runner) -> None:
        """Note the phase: the result lists phases in the order in which they began."""
        self.metrics.setdefault(phase_name(runner), {})

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the numbers among the validation's metrics, and None with a note for those that measure nothing."""
        numbers = {key: float(value) for key, value in (metrics or {}).items() if isinstance(value, Real)}
        empty = {key: words for key, value in numbers.items() if (words := no_measure(key, value))}
        for words in dict.fromkeys(empty.values()):
            if new := [key for key, same in empty.items() if same == words and key not in self.notes]:
                runner.logger.warning(f'null in result.json: {", ".join(new)}: {words}')
        self.notes = {key: words for key, words in self.notes.items() if key not in numbers} | empty
        phase = phase_name(runner)
        self.metrics[phase] = {key: None if key in empty else value for key, value in numbers.items()}
        self._add_point(runner, phase)
        self.details = details_of(runner.val_loop.evaluator)
        self.validated_at = runner.iter

    def _add_point(self, runner, phase: str) -> None:
        """Add the validation to the phase's curve; the same place again, after a resume, replaces the point."""
        cost, curve = cost_meter(runner).phases.get(phase, NO_COST), self.curves.setdefault(phase, [])
        main = {key: self.metrics[phase][key] for key in MAIN if key in self.metrics[phase]}
        if curve and curve[-1]['images'] == cost['images']:
            curve.pop()
        curve.append(Point(**{key: cost[key] for key in ('images', 'block_forwards', 'seconds')}, metrics=main))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the metrics into the checkpoint: a resumed run does not validate finished phases again."""
        checkpoint['result_hook'] = copy.deepcopy({key: getattr(self, key) for key in KEPT})

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the metrics from the checkpoint, if it has them."""
        self._begin()
        for key, value in checkpoint.get('result_hook', {}).items():
            if key in KEPT:
                setattr(self, key, copy.deepcopy(value))

    def after_train(self, runner) -> None:
        """Write the result; validate first if the last step has not been validated.

        That happens when a run was killed between its last step and its validation, and then resumed.
        """
        if runner.val_loop is not None and self.validated_at != runner.iter:
            runner.val_loop.run()
        self._write(runner)

    @master_only
    def _write(self, runner) -> None:
        path = run_folder(runner) / 'result.json'
        with locked(path):  # jobs of other phases may end at the same time
            phases = with_earlier_phases(runner, own_phases(runner, self.metrics, self.curves), path)
            folders = [runner.work_dir]
            # The other phases ran in folders of their own, with their own records of skipped samples.
            if loop_protocol(runner).only_phase:
                folders += [path.parent / phase['name'] for phase in phases]
            result = make_result(runner, phases)
            result |= {key: value for key in ('notes', 'details') if (value := getattr(self, key))}
            runner.call_hook('add_to_result', result=result, folders=folders)
            # A hook's mistake must not cost the result of a training that is over.
            if unknown := result.keys() - Result.__annotations__.keys():
                runner.logger.warning(f'{path} leaves out what it has no key for: {", ".join(sorted(unknown))}; a hook '
                                      'may set the keys of mmincubation.result.Result, or add numbers to `metrics`')
            write_result(path, {key: value for key, value in result.items() if key not in unknown})
        if runner.val_loop is not None and self.validated_at == runner.iter:
            write_per_image(runner.val_loop.evaluator, path.with_name(PER_IMAGE))  # for tools/compare.py
        runner.logger.info(f'Result written to {path}')


def no_measure(key: str, value: float) -> str:
    """Return in words why a metric is no measure; '' if it is one."""
    if value == -1 and PRECISION.search(key):
        return 'the validation set has no such object'
    return '' if math.isfinite(value) else f'the validation gave {value}'  # JSON has no number for that


def add_result_hooks(runner) -> None:
    """Give a runner whose config has `experiment`, or a ResultHook, the hooks that result.json needs."""
    wanted = runner.cfg.get('experiment') or any(isinstance(hook, ResultHook) for hook in runner.hooks)
    for kind in (CostMeter, ResultHook) if wanted else ():
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())


def cost_meter(runner) -> CostMeter:
    """Return the runner's CostMeter.

    Raises:
        ValueError: it has none.
    """
    for hook in runner.hooks:
        if isinstance(hook, CostMeter):
            return hook
    raise ValueError("ResultHook needs a CostMeter: add dict(type='mmincubation.CostMeter') to `custom_hooks`")


def run_folder(runner) -> Path:
    """Return the run's folder.

    A phase that runs alone works in a folder below it, and shares the weights and the result of the whole run.
    """
    loop = loop_protocol(runner)
    return loop.weights_dir.parent if loop.only_phase and loop.weights_dir else Path(runner.work_dir)


def own_phases(runner, metrics: dict[str, dict[str, float | None]], curves: dict[str, list[Point]]) -> list[Phase]:
    """Return the phases that this run went through, in the order in which they began.

    A phase that only validates, such as the assembled model before fine-tuning, costs nothing.
    """
    loader, costs, phases = runner.train_dataloader, cost_meter(runner).phases, []
    for name, values in metrics.items():
        cost = costs.get(name, NO_COST)
        # An iteration loop's sampler is endless, its loader has no length to divide by.
        by_images = isinstance(runner.train_loop, IterBasedTrainLoop)
        epochs = cost['images'] / len(loader.dataset) if by_images else cost['iters'] / len(loader)
        counts = {key: cost[key] for key in ('images', 'block_forwards', 'seconds', 'data_seconds') if key in cost}
        phases.append(Phase(name=name, epochs=round(epochs, 3), **counts, metrics=values, curve=curves.get(name, [])))
    return phases


def earlier_phases(runner, path: Path) -> list[Phase]:
    """Return the phases of an existing result of the same config; an empty list if there is none."""
    if not path.exists():
        return []
    try:
        earlier = read_result(path)
    except ResultError as error:
        runner.logger.warning(f'The earlier result is not used: {error}')
        return []
    if earlier['config_sha256'] != provenance.config_sha256(runner.cfg):
        runner.logger.warning(f'{path} is of another config: its phases are left out of the new result')
        return []
    return earlier['phases']


def with_earlier_phases(runner, phases: list[Phase], path: Path) -> list[Phase]:
    """Return the phases of the whole run, in their order.

    If one phase ran alone, add the phases of earlier runs from the result at `path`.
    """
    if not loop_protocol(runner).only_phase:
        return phases
    merged = {phase['name']: phase for phase in [*earlier_phases(runner, path), *phases]}
    meta, *modules, last = phase_names(len(unwrap(runner.model).division))
    return [merged[name] for name in [meta, 'modules', *modules, ASSEMBLED, last] if name in merged]


def final_metrics(runner, phases: list[Phase]) -> dict[str, float | None]:
    """Return the metrics of the finished model; empty if it has not been validated.

    The accuracy of a hybrid or of the meta model is not that of the assembled model, so those phases do not count.
    """
    if loop_protocol(runner).phase_name is not None:
        phases = [phase for phase in phases if phase['name'] in WHOLE]
    return phases[-1]['metrics'] if phases else {}


def total_block_forwards(phases: list[Phase]) -> int | None:
    """Return the sum over the phases; None if one of them was not counted."""
    counts = [phase['block_forwards'] for phase in phases]
    return None if None in counts else sum(counts)


def make_result(runner, phases: list[Phase]) -> Result:
    """Return the content of `result.json` for a run that has ended with these phases."""
    cfg, work_dir = runner.cfg, run_folder(runner)
    return Result(
        schema=SCHEMA, run=Path(cfg.filename or work_dir).stem, experiment=cfg.experiment.to_dict(),
        config=provenance.config_path(cfg), config_sha256=provenance.config_sha256(cfg),
        git_commit=provenance.git_commit(), seed=runner.seed, recipe=recipe_of(cfg, get_world_size()),
        weights=provenance.loaded_weights(unwrap(runner.model)), outputs=provenance.written_weights(work_dir),
        data=provenance.data_summary(runner), metrics=final_metrics(runner, phases), phases=phases,
        images_seen=sum(phase['images'] for phase in phases), block_forwards=total_block_forwards(phases),
        device_seconds=sum(phase['seconds'] for phase in phases), peak_memory_mib=provenance.peak_memory_mib(),
        hardware=provenance.hardware(), devices=get_world_size(), versions=provenance.versions(),
        pictures=provenance.newest_pictures(work_dir),
        finished_at=datetime.now(UTC).isoformat(timespec='seconds'))
