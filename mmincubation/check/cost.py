"""Report the time and the disk space of a whole run."""
import os
import shutil
from pathlib import Path

from mmincubation.config.models import division_of
from mmincubation.config.rehearsal import training_phases
from mmincubation.incubation.phases import block_forwards

from .memory import Peak
from .recipe import lengths
from .report import Report

HOW = ('give --img-per-s X, images a second on one GPU; to get X run tools/train.py for some iterations and divide '
       'the batch by the `time` of its log lines')


def report_time(cfg, images: int | None, gpus: int, img_per_s: float | None, report: Report) -> None:
    """Report the hours of each phase at `img_per_s` training images a second and GPU, without validation.

    Without `img_per_s`, report how to measure it. The phases of an incubation cost in proportion to their
    block-forwards; `img_per_s` is then the speed of fine-tuning.
    """
    if img_per_s is None:
        return report.say(HOW)
    batch, total = cfg.train_dataloader['batch_size'] * gpus, 0.
    full = _block_forwards(cfg, None)
    for phase, length in zip(training_phases(cfg), lengths(cfg, images, gpus), strict=True):
        if length.iters is None:
            return report.say('not known without the data: the number of iterations of an epoch')
        # A phase with fewer block-forwards an image trains more images a second.
        speed = img_per_s * gpus * full / _block_forwards(cfg, phase)
        seconds = length.iters * batch / speed
        total += seconds
        report.say(f'{length.phase}: {_rate(length, batch, speed)}, {seconds / 3600:,.2f} h')
    report.say(f'whole schedule: {total / 3600:,.2f} h on {gpus} GPU{"s" * (gpus > 1)} = {total * gpus / 3600:,.2f} '
               f'GPU hours at {img_per_s:g} images a second and GPU, without validation')


def _rate(length, batch: int, speed: float) -> str:
    if length.epochs:
        return f'{length.iters / length.epochs * batch / speed / 60:,.2f} min an epoch'
    return f'{1000 * batch / speed / 60:,.2f} min per 1,000 iterations'


def _block_forwards(cfg, phase) -> int:
    """Return the blocks that an image passes in a phase, on all ranks; 1 in runs without phases."""
    if training_phases(cfg) == [None]:
        return 1
    division = division_of(cfg.model)
    return division.depth if phase is None else block_forwards(division, phase, cfg.train_cfg.get('mode', 'sequential'))


def report_disk(cfg, work_dir: str, peaks: list[Peak], report: Report) -> None:
    """Report whether `work_dir` can be written and its disk holds the checkpoints of the run.

    These are the checkpoints that are kept, plus the one being written.
    """
    folder = Path(work_dir)
    # The folder may not exist yet; its nearest parent has the rights and the disk.
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        report.problem('work_dir', f'{work_dir} cannot be written ({folder} refuses)', 'give another --work-dir')
    free = shutil.disk_usage(folder).free
    if not peaks:
        return report.say(f'{work_dir}: {gib(free)} free')
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    # Phases have optimisers of different sizes; the largest checkpoint counts.
    one = max(p.saved[0] + p.saved[1] * hook.get('save_optimizer', True) for p in peaks)
    kept = hook.get('max_keep_ckpts', -1)
    kept = kept if kept > 0 else _saved(cfg, hook)
    best = bool(hook.get('save_best'))
    need = one * (kept + 1 + best)
    report.say(f'{work_dir}: {gib(free)} free; checkpoints {kept} kept{" + the best" * best} + 1 being written x '
               f'{gib(one)} = {gib(need)}')
    if need > free:
        report.problem('work_dir', f'{gib(free)} free, the checkpoints need {gib(need)}',
                       'free space, or set default_hooks.checkpoint.max_keep_ckpts')


def _saved(cfg, hook: dict) -> int:
    """Return the number of checkpoints of a run that keeps all."""
    loop = cfg.get('train_cfg') or {}
    total = loop.get('max_epochs') or loop.get('max_iters') or sum(p.epochs for p in training_phases(cfg) if p)
    interval = hook.get('interval', 1)
    return max(total // interval, 1) if interval > 0 else 1


def gib(size: int) -> str:
    """Return a number of bytes as text in GiB, small ones in MiB."""
    return f'{size / 2**30:,.1f} GiB' if size >= 2**30 else f'{size / 2**20:,.0f} MiB'
