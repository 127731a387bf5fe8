"""Decide when checkpoints are written and which are kept."""
from collections.abc import Iterable
from pathlib import Path

from mmengine import hooks
from mmengine.dist import is_main_process, master_only

from mmincubation.atomic import remove_strays
from mmincubation.checkpoints import read_tensors
from mmincubation.errors import ConfigError
from mmincubation.incubation.phases import WHOLE
from mmincubation.registry import HOOKS
from mmincubation.resumable.protocol import loop_protocol

from .checkpoint_files import point_to, remove_checkpoint, stream, write_checkpoint

KEPT, OUTDATED = 'keep_ckpt_ids', 'outdated_ckpts'  # in the message hub: mmengine's, and ours


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """Keep checkpoints as mmengine's CheckpointHook does, in a safer order.

    It writes a checkpoint, then records its name in `last_checkpoint`, then deletes old ones.

    So there is a complete checkpoint at every moment, with `max_keep_ckpts=1` too. The files to delete are listed in
    the checkpoint that replaces them: a run killed before it has deleted them does so when it resumes. The hook
    deletes only files in this run's own folder. The tools put it in the place of every plain `CheckpointHook`.
    """

    def before_train(self, runner) -> None:
        """Find the folder; remove unfinished files of killed runs and files that the resumed checkpoint has replaced.

        Raises:
            ConfigError: the config asks for another storage than a mounted file system.
        """
        if self.backend_args or self.file_client_args or '://' in str(self.out_dir or ''):
            raise ConfigError('default_hooks.checkpoint: checkpoints are written to a mounted file system only; drop '
                              'backend_args and file_client_args, and give a path as out_dir')
        folder = Path(self.out_dir, Path(runner.work_dir).name) if self.out_dir else Path(runner.work_dir)
        self.out_dir = str(folder)
        runner.logger.info(f'Checkpoints will be saved to {folder}.')
        source = runner._load_from  # None in a stock Runner that has found the newest one of this folder itself
        if not runner._resume or source and Path(source).parent.resolve() != folder.resolve():
            runner.message_hub.runtime_info.pop(KEPT, None)  # ids of another folder's files
            runner.message_hub.runtime_info.pop(OUTDATED, None)
        name = Path(source or '').name
        self._remove_outdated(runner, name)
        if self.by_epoch and name == self._name_within_epoch(runner.iter):
            self._note_replaced(runner, [name])
        self._remove_strays(runner)

    def after_train(self, runner) -> None:
        """Save where the run has ended, if that was earlier than planned; publish, if `published_keys` is set."""
        step = runner.epoch if self.by_epoch else runner.iter
        if self.save_last and step and Path(_info(runner, 'last_ckpt', '')).name != self.filename_tmpl.format(step):
            self._save_between(runner, step)
        if self.published_keys is None:
            return
        best = [_info(runner, self._name('best_ckpt', key), None) for key in self.key_indicators] \
            if self.save_best else []
        for path in [self.last_ckpt if self.save_last else None, *best]:
            if path:
                self._publish_model(runner, path)

    @master_only
    def _publish_model(self, runner, ckpt_path: str) -> None:
        """Write the published keys of a checkpoint to a file that is named by its SHA-256, as torch.hub checks it."""
        content = {key: value for key, value in read_tensors(ckpt_path)[0].items() if key in self.published_keys}
        with open('/dev/null', 'wb') as nowhere:
            sha256 = stream(content, nowhere)
        path = Path(ckpt_path).with_name(f'{Path(ckpt_path).stem}-{sha256[:8]}.pth')
        write_checkpoint(path, content)
        runner.logger.info(f'The checkpoint {ckpt_path} is published to {path}.')

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts > 0:
            steps = [s for s in _info(runner, KEPT, []) if s != step] + [step]
            runner.message_hub.update_info(KEPT, steps[-self.max_keep_ckpts:])
            self._note_replaced(runner, map(self.filename_tmpl.format, steps[:-self.max_keep_ckpts]))
        self._save(runner, name, meta, self.by_epoch)

    def _save_between(self, runner, step: int) -> None:
        """Save outside of a step, when epoch and iteration have been counted already."""
        self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))

    def save_now(self, runner, within_epoch: bool) -> None:
        """Save the present state of the run, unless that was just done.

        If the run saves once an epoch, a checkpoint within an epoch is deleted after the next one is complete.
        """
        irregular = self.by_epoch and within_epoch
        step = (runner.epoch if self.by_epoch else runner.iter) + 1
        name = self._name_within_epoch(runner.iter + 1) if irregular else self.filename_tmpl.format(step)
        if self.last_ckpt == str(Path(self.out_dir, name)):
            return
        if irregular:
            self._save(runner, name, {}, by_epoch=False)
        else:
            self._save_checkpoint(runner)

    @staticmethod
    def _name_within_epoch(iteration: int) -> str:
        return f'iter_{iteration}.pth'

    def _save(self, runner, name: str, meta: dict, by_epoch: bool) -> None:
        self.last_ckpt = str(Path(self.out_dir, name))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler,
            meta=meta, by_epoch=by_epoch, **self.args)
        if is_main_process():
            point_to(runner.work_dir, self.last_ckpt)
        self._remove_outdated(runner, name)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best or not metrics:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        if missing := [key for key in self.key_indicators if key not in metrics]:
            raise ConfigError(f'default_hooks.checkpoint.save_best: the validation gives no {", ".join(missing)}; it '
                              f'gives {", ".join(metrics)}')
        if loop_protocol(runner).phase_name not in (None, *WHOLE):
            return  # of the meta model or a hybrid: another network, whose score is no measure for this one
        step = runner.epoch if self.by_epoch else runner.iter
        better = [key for key, rule in zip(self.key_indicators, self.rules, strict=True)
                  if self._is_better(runner, key, rule, metrics[key])]
        for key in better:
            self._save_best(runner, key, metrics[key], step)
        if better and self.last_ckpt is not None:  # once more: it must know the best one and what that replaces
            self._save_between(runner, step)
        self._remove_outdated(runner)

    def _is_better(self, runner, key: str, rule: str, score: float | None) -> bool:
        best = _info(runner, self._name('best_score', key), self.init_value_map[rule])
        return score is not None and self.is_better_than[key](score, best)

    def _save_best(self, runner, key: str, score: float, step: int) -> None:
        name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        slot = self._name('best_ckpt', key)
        if (old := Path(_info(runner, slot, None) or name).name) != name:
            self._note_replaced(runner, [old])
        runner.message_hub.update_info(self._name('best_score', key), score)
        runner.message_hub.update_info(slot, str(Path(self.out_dir, name)))
        runner.save_checkpoint(
            self.out_dir, name, save_optimizer=False, save_param_scheduler=False,
            meta=dict(epoch=runner.epoch, iter=runner.iter), by_epoch=False)
        runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {step} '
                           f'{"epoch" if self.by_epoch else "iter"} is saved to {name}.')

    def _name(self, what: str, key: str) -> str:
        """Return mmengine's name of an entry of the message hub; with one metric it does not name the metric."""
        return what if len(self.key_indicators) == 1 else f'{what}_{key}'

    def _note_replaced(self, runner, names: Iterable[str]) -> None:
        """Note files that go once the next checkpoint is complete."""
        runner.message_hub.update_info(OUTDATED, [*_info(runner, OUTDATED, []), *names])

    def _remove_outdated(self, runner, needed: str = '') -> None:
        names = [Path(name).name for name in _info(runner, OUTDATED, [])]
        if is_main_process():
            for name in {*names} - {needed, ''}:
                remove_checkpoint(Path(self.out_dir, name))
        runner.message_hub.update_info(OUTDATED, [])

    @master_only
    def _remove_strays(self, runner) -> None:
        weights = loop_protocol(runner).weights_dir or Path(runner.work_dir, 'weights')
        found = [*remove_strays(runner.work_dir), *remove_strays(self.out_dir)]
        for folder in (weights, Path(weights).parent):  # of a phase alone: shared with the other phases' jobs
            found += remove_strays(folder, shared=True)
        if found:
            runner.logger.warning(f'removed what a killed run had not finished: {", ".join(map(str, found))}')


def _info(runner, key: str, default):
    info = runner.message_hub.runtime_info
    return info[key] if info.get(key) is not None else default
