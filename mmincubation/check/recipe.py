"""Compare batch, learning rate and schedules with the recipe that the config states."""
from dataclasses import dataclass

from mmincubation.config.rehearsal import training_phases
from mmincubation.config.scaling import accumulation, images_per_step
from mmincubation.resumable.batches import no_batch, odd_batch

from .report import Report

BATCH = 'train_dataloader.batch_size'


@dataclass(frozen=True)
class Length:
    """Hold the length of a phase in epochs and iterations; one of them is None if it needs data that are not here."""
    phase: str
    epochs: int | None
    iters: int | None


def lengths(cfg, images: int | None, gpus: int) -> list[Length]:
    """Return each phase's length; `images` is the number of images in an epoch, None if unknown."""
    loop = cfg.get('train_cfg') or {}
    size = cfg.train_dataloader['batch_size']
    each = images and -(-images // gpus)  # of a rank; samplers repeat images so that all have as many
    per_epoch = images and (each // size if cfg.train_dataloader.get('drop_last') else -(-each // size))
    phases = training_phases(cfg)
    if phases != [None]:
        return [Length(p.name, p.epochs, per_epoch and p.epochs * per_epoch) for p in phases]
    epochs, iters = loop.get('max_epochs'), loop.get('max_iters')
    return [Length('train', epochs, iters or (per_epoch and epochs and epochs * per_epoch))]


def report_recipe(cfg, images: int | None, gpus: int, report: Report) -> None:
    """Report batch and learning rate, then the schedule of each phase."""
    _report_batch(cfg, gpus, report)
    for phase, length in zip(training_phases(cfg), lengths(cfg, images, gpus), strict=True):
        said = ', '.join(f'{n:,} {what}' for n, what in ((length.epochs, 'epochs'), (length.iters, 'iterations')) if n)
        updates = f', {length.iters // accumulation(cfg):,} updates' if length.iters and accumulation(cfg) > 1 else ''
        report.say(f'{length.phase}: {said}{updates}'
                   + '; iterations are not known without the data' * (not length.iters))
        for part in phase.subphases or [phase] if phase else [None]:
            _report_schedule(cfg, part, length, report)
    endless = 'InfiniteSampler' in str((cfg.train_dataloader.get('sampler') or {}).get('type'))
    if not endless and images is not None:
        _report_batches(cfg, -(-images // gpus), report)


def _report_batches(cfg, images: int, report: Report) -> None:
    """Report what a run refuses of the batches of an epoch of `images` on a rank, and that there is no whole one."""
    size, drop_last = cfg.train_dataloader['batch_size'], bool(cfg.train_dataloader.get('drop_last'))
    if images < size and drop_last:
        report.problem('', no_batch(images, size), '')
    elif images < size:
        report.warn(f'{BATCH}: {images} images (a rank) are less than one batch of {size}; give a smaller batch or '
                    'more images')
    mixes = (cfg.model.get('data_preprocessor') or {}).get('mixup')
    if mixes and (odd := odd_batch(images, size, drop_last)):
        report.problem('', odd, '')


def _report_batch(cfg, gpus: int, report: Report) -> None:
    each, adds = cfg.train_dataloader['batch_size'], accumulation(cfg)
    total = images_per_step(cfg, gpus)
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    lr = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    what = f'batch {each} x {gpus} GPU{"s" * (gpus > 1)} x {adds} accumulated = {total}'
    if not base or lr is None:
        return report.say(f'{what}; lr {lr}; the config names no auto_scale_lr.base_batch_size to compare with')
    report.say(f'{what}, the recipe has {base}; lr {lr:g}')
    if total == base:
        return
    if scale.get('enable'):  # mmengine scales by the batch of one iteration
        return report.say(f'auto_scale_lr: lr {lr * each * gpus / base:g}')
    scaled = f'{lr * total / base:g}'
    # The tools refuse --auto-scale-lr together with accumulation, which it would not see.
    wanted = [f'train with --auto-scale-lr (lr {scaled})' if adds == 1
              else f'give --cfg-options optim_wrapper.optimizer.lr={scaled}']
    wanted += [f'use --gpus {base // (each * adds)}'] * (base % (each * adds) == 0)
    wanted += [f'--cfg-options {BATCH}={base // (gpus * adds)}'] * (base % (gpus * adds) == 0)
    wanted += [f'--cfg-options optim_wrapper.accumulative_counts={base // (each * gpus)} (and as many times the '
               'iterations where a schedule counts them)'] * (base % (each * gpus) == 0)
    report.warn(f'{BATCH}: {what}, but lr {lr:g} is for {base}; {", or ".join(wanted)}')


def _report_schedule(cfg, phase, length: Length, report: Report) -> None:
    own = phase is not None and phase.param_scheduler is not None
    place = f'train_cfg.phases.{phase.name}.param_scheduler' if own else 'param_scheduler'
    schedulers = phase.param_scheduler if own else cfg.get('param_scheduler')
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, list) else [schedulers]):
        if scheduler:
            _report_scheduler(f'{place}.{i}', scheduler, length, report)


def _report_scheduler(place: str, scheduler: dict, length: Length, report: Report) -> None:
    by_epoch = scheduler.get('by_epoch', True)
    unit, total = ('epochs', length.epochs) if by_epoch else ('iterations', length.iters)
    name = f'{scheduler.get("type")} of {length.phase}'
    if total is None:
        return
    late = [m for m in scheduler.get('milestones') or () if m >= total]
    if late:
        report.warn(f'{place}: milestones {late} of {name} are never reached in {total:,} {unit}; lower them, or train '
                    'longer')
    for key in ('begin', 'end'):
        value = scheduler.get(key)
        # A schedule may end with the training, but one that begins there never acts.
        if value is not None and value > total - (key == 'begin'):
            report.warn(f'{place}: {name} has {key}={value:,}, but training ends after {total:,} {unit}; lower {key}, '
                        'or train longer')
