"""What a run shows on the console: about ten lines that matter, then the training log. The log file has everything."""
import logging

from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmincubation import provenance
from mmincubation.config.scaling import images_per_step
from mmincubation.registry import dicts_in
from mmincubation.resumable.protocol import BaseHook
from mmincubation.vit.sharding import unwrap

SHOWN = dict(console=True)  # `extra` of a log record that reaches the console while a run is built


class Quiet(logging.Filter):
    """Keep notes off the console until `over`: tables of hooks, environment and config; warnings and errors pass."""
    over = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the console shows a record."""
        return self.over or record.levelno >= logging.WARNING or getattr(record, 'console', False)


def quiet(logger: MMLogger) -> Quiet:
    """Filter what a logger shows on the console; at the level DEBUG it shows all."""
    silence = Quiet()
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler and handler.level > logging.DEBUG:  # a FileHandler is one too
            handler.addFilter(silence)
    return silence


class SummaryHook(BaseHook):
    """Say in about ten lines what begins, then let the console show the log; the tools add this hook to every run."""
    priority = 'LOWEST'  # what other hooks note before the run belongs to the log file

    def before_train(self, runner) -> None:
        """Say what is trained, on what, from where, and where it goes."""
        self._show(runner, training_lines(runner))

    def before_test(self, runner) -> None:
        """Say what is tested, and on what."""
        self._show(runner, [model_line(runner, 'tests'), data_line(runner, 'test'), place_line(runner)])

    @staticmethod
    def _show(runner, lines: list[str]) -> None:
        for line in lines:
            runner.logger.info(line, extra=SHOWN)
        runner.silence.over = True


def training_lines(runner) -> list[str]:
    """Return the lines that a training run begins with."""
    loop, step = runner.train_loop, images_per_step(runner.cfg, get_world_size())
    lines = [model_line(runner, 'trains'), f'{data_line(runner, "train")}, {step} a step']
    if runner.val_loop is not None:
        lines.append(data_line(runner, 'val'))
    if isinstance(loop, IterBasedTrainLoop):
        lines.append(f'length: {loop.max_iters:,} iterations')
    elif isinstance(loop, EpochBasedTrainLoop):
        lines.append(f'length: {loop.max_epochs:,} epochs of {len(runner.train_dataloader):,} iterations')
    lines.append(weights_line(runner))
    lines.append(f'seed: {runner.seed}' + (', drawn because the config gives none' if runner.seed_was_drawn else ''))
    lines += [place_line(runner), f'work dir: {runner.work_dir}; the whole log is in {runner.logger.log_file}']
    return lines


def model_line(runner, verb: str) -> str:
    """Return a line with the model, its backbone and its parameters."""
    model = unwrap(runner.model)
    backbone = getattr(model, 'backbone', None)
    inside = f' with {type(backbone).__name__}' if backbone is not None else ''
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    more = f', of which {trained:,} train' if verb == 'trains' and trained != total else ''
    return f'{verb}: {type(model).__name__}{inside}, {total:,} parameters{more}'


def data_line(runner, kind: str) -> str:
    """Return a line with the data set of `train`, `val` or `test`, and its size."""
    dataset = getattr(runner, f'{kind}_dataloader').dataset
    size = f'{len(dataset):,} images' if hasattr(dataset, '__len__') else 'a stream'
    return f'{kind}: {provenance.dataset_name(runner.cfg[f"{kind}_dataloader"]["dataset"])}, {size}'


def weights_line(runner) -> str:
    """Return a line that says from which weights the run begins."""
    if runner._resume and runner._load_from:
        return f'goes on from {runner._load_from}, after iteration {runner.iter}'
    if runner._load_from:
        return f'weights: load_from {runner._load_from}'
    if loaded := provenance.reported_weights(unwrap(runner.model)):
        return f'weights: {loaded["coverage"]}'
    named = [f'{place}.{key}={node[key]}' for place, node in dicts_in(runner.cfg.get('model'), 'model')
             for key in ('checkpoint', 'pretrained') if node.get(key)]
    return f'weights: {", ".join(named) or "the config names none"}'


def place_line(runner) -> str:
    """Return a line with the device, the processes and the precision."""
    world, wrapper = get_world_size(), type(runner.optim_wrapper).__name__
    more = ', mixed precision' if wrapper in ('AmpOptimWrapper', 'AutocastOptimWrapper') else ''
    return f'device: {provenance.hardware()}{f", {world} processes" if world > 1 else ""}{more}'
