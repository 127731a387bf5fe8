"""What a run shows on the console: about ten lines that matter, then the training log. The log file has everything."""
import logging

from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.runner import IterBasedTrainLoop

from mmincubation import provenance
from mmincubation.config.scaling import images_per_step
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
        data = runner.test_dataloader.dataset
        self._show(runner, [model_line(runner, 'tests'), f'data: {type_of(data)}, {len(data):,} images',
                            place_line(runner)])

    @staticmethod
    def _show(runner, lines: list[str]) -> None:
        for line in lines:
            runner.logger.info(line, extra=SHOWN)
        runner.silence.over = True


def training_lines(runner) -> list[str]:
    """Return the lines that a training run begins with."""
    loop, data = runner.train_loop, provenance.data_summary(runner)
    loader, world = runner.train_dataloader, get_world_size()
    step = images_per_step(runner.cfg, world)
    lines = [model_line(runner, 'trains')]
    lines.append(f'train: {data["train"]}, {data["train_size"]:,} images, {step} a step')
    if data['val']:
        lines.append(f'val: {data["val"]}, {data["val_size"]:,} images')
    by_iter = isinstance(loop, IterBasedTrainLoop)
    lines.append(f'length: {loop.max_iters:,} iterations' if by_iter else
                 f'length: {loop.max_epochs:,} epochs of {len(loader):,} iterations')
    lines.append(weights_line(runner))
    lines.append(f'seed: {runner.seed}' + (', drawn because the config gives none' if runner.seed_was_drawn else ''))
    lines += [place_line(runner), f'work dir: {runner.work_dir}; the whole log is in {runner.logger.log_file}']
    return lines


def model_line(runner, verb: str) -> str:
    """Return a line with the model, its backbone and its parameters."""
    model = unwrap(runner.model)
    backbone = getattr(model, 'backbone', None)
    inside = f' with {type_of(backbone)}' if backbone is not None else ''
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    more = f', of which {trained:,} train' if verb == 'trains' and trained != total else ''
    return f'{verb}: {type_of(model)}{inside}, {total:,} parameters{more}'


def weights_line(runner) -> str:
    """Return a line that says from which weights the run begins."""
    if runner._resume and runner._load_from:
        return f'goes on from {runner._load_from}, after iteration {runner.iter}'
    if runner._load_from:
        return f'weights: load_from {runner._load_from}'
    loaded = provenance.loaded_weights(unwrap(runner.model))
    return f'weights: {loaded["coverage"]}' if loaded else 'weights: none, all begin at random values'


def place_line(runner) -> str:
    """Return a line with the device, the processes and the precision."""
    world, wrapper = get_world_size(), type_of(runner.optim_wrapper)
    more = ', mixed precision' if wrapper in ('AmpOptimWrapper', 'AutocastOptimWrapper') else ''
    return f'device: {provenance.hardware()}{f", {world} processes" if world > 1 else ""}{more}'


def type_of(thing) -> str:
    """Return the name of a class; of a data set the innermost one, which reads the files."""
    while type(thing).__name__ in ('SeededDataset', 'CheckedDataset'):
        thing = thing.dataset
    return type(thing).__name__
