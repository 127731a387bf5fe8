"""Small hooks: where random draws come from, and where trained weights go."""
from pathlib import Path

import torch
from mmengine.dist import get_rank, master_only
from mmengine.hooks import DistSamplerSeedHook, Hook
from mmengine.runner import set_random_seed

from mmincubation.checkpoints import check_fit, write_tensors
from mmincubation.registry import HOOKS

from .cost import unwrap


@HOOKS.register_module()
class PhaseSeedHook(DistSamplerSeedHook):
    """Every epoch draws order, erasing, mixup and drop path from (seed, epoch of its phase, rank), and the augmentation
    of each image from (seed, epoch, image) where the data set can, in workers too (`reseed`, see `ClsDataset`).

    So every module sees the same data in the same order, and an epoch that is run again draws the same numbers.
    """

    def before_train_epoch(self, runner) -> None:
        """Seed the sampler, the data set and this process."""
        epoch = getattr(runner.train_loop, 'phase_epoch', runner.epoch)
        sampler, data = runner.train_dataloader.sampler, runner.train_dataloader.dataset
        if hasattr(sampler, 'set_epoch'):  # an InfiniteSampler has no epochs
            sampler.set_epoch(epoch)
        if hasattr(data, 'reseed'):
            data.reseed(runner.seed, epoch)
        # A loader draws a number where its workers start, which persistent ones do in a process's first epoch only:
        # from this process's generator, it would move the drop path of that epoch, and so of a resumed run.
        runner.train_dataloader.generator = torch.Generator().manual_seed(epoch)
        set_random_seed((runner.seed + 1_000_003 * (epoch + 1) + 7919 * get_rank()) % 2**32)


@HOOKS.register_module()
class CheckpointGuard(Hook):
    """Stands between a checkpoint and the Runner, in `load_from` and in resuming; the tools add it to every run.

    mmengine executes the config text stored in a checkpoint that it resumes from, and loads what happens to match;
    this drops the text, and refuses a checkpoint that does not match the model, on every rank.
    """
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Called before mmengine looks at the checkpoint."""
        checkpoint.get('meta', {}).pop('config', None)
        check_fit(unwrap(runner.model), checkpoint.get('state_dict', checkpoint), 'the checkpoint to load')


@HOOKS.register_module()
class WeightsHook(Hook):
    """Writes what was trained as safetensors in timm's names: `<work_dir>/weights/<phase>_{last,best}.safetensors`.

    `last` is written at the end of a phase, `best` after each validation that improves `metric` (higher is better).
    """
    priority = 'LOW'

    def __init__(self, metric: str = 'accuracy/top1'):
        self.metric = metric
        self.best: dict[str, float] = {}

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write `best` if it is."""
        phase = getattr(runner._train_loop, 'phase_name', 'e2e')
        if phase != 'assembled' and metrics and metrics[self.metric] > self.best.get(phase, float('-inf')):
            self.best[phase] = metrics[self.metric]
            self._write(runner, 'best')

    def after_phase(self, runner) -> None:
        """Write `last` (called by the IncubationLoop)."""
        self._write(runner, 'last')

    def after_train(self, runner) -> None:
        """Write `last` where the loop has no phases."""
        if not hasattr(runner.train_loop, 'phase_name'):
            self._write(runner, 'last')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """The best scores so far go with the checkpoint."""
        checkpoint['weights_hook'] = dict(self.best)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Inverse of `before_save_checkpoint`; weights of another run (`load_from`) bring no scores."""
        if runner._resume:
            self.best = dict(checkpoint.get('weights_hook', {}))

    @master_only
    def _write(self, runner, which: str) -> None:
        name, tensors, header = unwrap(runner.model).export()
        folder = getattr(runner.train_loop, 'weights_dir', Path(runner.work_dir) / 'weights')
        write_tensors(Path(folder) / f'{name}_{which}.safetensors', tensors, header)
