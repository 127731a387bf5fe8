"""Which checkpoints a run keeps, in which order files come and go, and what a run is resumed from."""
import os
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmincubation.checkpoints import CheckpointError, sha256_of
from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.engine import launch
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import ConfigError
from mmincubation.recovery import CheckpointHook
from mmincubation.recovery.checkpoint_files import damage
from tests.helpers.toy import e2e_config, incubation_config


def config(images, folder, epochs: int = 4, by_epoch: bool = True, **hook):
    """The E2E toy, by epochs or by iterations (4 an epoch), validated after each epoch."""
    cfg = e2e_config(images, folder, epochs)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=by_epoch, **hook)
    cfg.custom_hooks = []
    if not by_epoch:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4 * epochs, val_interval=4)
        cfg.default_hooks.checkpoint.interval = 4
        cfg.log_processor.by_epoch = False
        cfg.param_scheduler = []
    return cfg


def build(cfg) -> ToolRunner:
    allow_mm_checkpoints()
    build.runs += 1
    cfg.experiment_name = f'{cfg.work_dir}-{build.runs}'  # mmengine keeps one logger and message hub per name
    return ToolRunner.from_cfg(cfg)


build.runs = 0


def tell(runner, *scores: float) -> None:
    """Let the validations of a run give these scores, one after the other."""
    left = list(scores)
    runner.val_loop.evaluator.evaluate = lambda size: {'score': left.pop(0)}


def checkpoints(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob('*.pth'))


@pytest.fixture
def watched(monkeypatch):
    """Checks, at every deletion and renaming, what a kill at this moment would leave."""
    unlink, replace, events = Path.unlink, os.replace, []

    def resumable(folder: Path) -> None:
        if (pointer := folder / 'last_checkpoint').exists():
            named = folder / Path(pointer.read_text()).name
            assert damage(named) is None and 'optimizer' in torch.load(named), (named, events)

    def watch(kind, path, action):
        path = Path(path)
        if '.tmp' not in path.name:
            events.append((kind, path.name))
            resumable(path.parent)
        action()
        resumable(path.parent)

    monkeypatch.setattr(Path, 'unlink', lambda self, missing_ok=False: watch(
        'removed', self, lambda: unlink(self, missing_ok)) if self.exists() or not missing_ok else None)
    monkeypatch.setattr(os, 'replace', lambda a, b: watch('written', b, lambda: replace(a, b)))
    return events


@pytest.mark.parametrize('by_epoch', [True, False])
def test_keep_one_is_never_none(images, tmp_path, watched, by_epoch):
    runner = build(config(images, tmp_path, by_epoch=by_epoch, max_keep_ckpts=1))
    assert isinstance(next(h for h in runner.hooks if 'Checkpoint' in type(h).__name__), CheckpointHook)
    runner.train()
    names = [f'epoch_{i}.pth' for i in (1, 2, 3, 4)] if by_epoch else [f'iter_{i}.pth' for i in (4, 8, 12, 16)]
    assert checkpoints(tmp_path) == names[-1:] and not list(tmp_path.glob('.*.tmp'))
    assert sorted(p.name for p in tmp_path.glob('*.sha256')) == [f'{names[-1]}.sha256']
    seen = [event for event in watched if event[1] in (*names, 'last_checkpoint')]
    expected = [('written', names[0]), ('written', 'last_checkpoint')]
    for old, new in zip(names, names[1:], strict=False):
        expected += [('written', new), ('written', 'last_checkpoint'), ('removed', old)]
    assert seen == expected


@pytest.mark.parametrize('by_epoch', [True, False])
def test_best_and_last_together(images, tmp_path, watched, by_epoch):
    runner = build(config(images, tmp_path, by_epoch=by_epoch, max_keep_ckpts=1, save_best='score', rule='greater'))
    tell(runner, 0.1, 0.3, 0.2, float('nan'))
    runner.train()
    last, best = ('epoch_4.pth', 'best_score_epoch_2.pth') if by_epoch else ('iter_16.pth', 'best_score_iter_8.pth')
    assert checkpoints(tmp_path) == [best, last]
    old = best.replace('2', '1') if by_epoch else best.replace('8', '4')
    order = [watched.index(('written', old)), watched.index(('written', best)), watched.index(('removed', old))]
    assert order == sorted(order)
    assert torch.load(tmp_path / last)['message_hub']['runtime_info']['best_ckpt'] == str(tmp_path / best)
    assert 'optimizer' not in torch.load(tmp_path / best)


def test_scores_of_other_networks_do_not_count(images, tmp_path):
    """The meta model's and the hybrids': neither for the best checkpoint nor for fine-tuning's schedule."""
    cfg = incubation_config(images, tmp_path, (1, 1, 3))
    cfg.default_hooks.checkpoint.save_best, cfg.default_hooks.checkpoint.rule = 'score', 'greater'
    cfg.param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='score', rule='greater')]
    cfg.custom_hooks = []
    runner = build(cfg)
    tell(runner, 0.9, 0.1, 0.2, 0.3, 0.25, 0.5, 0.4)  # meta, two hybrids, assembled, fine-tuning
    runner.train()
    assert checkpoints(tmp_path) == ['best_score_epoch_5.pth', *(f'epoch_{i}.pth' for i in range(1, 7))]
    found = {i: torch.load(tmp_path / f'epoch_{i}.pth') for i in range(1, 7)}
    best = [found[i]['message_hub']['runtime_info'].get('best_score') for i in found]
    assert best == [None, None, 0.3, 0.3, 0.5, 0.5]  # of epochs 3 and 5 as they were written again
    seen = [found[i]['param_schedulers'][0]['best'] for i in found]
    assert max(seen[:4]) < 0 and seen[4:] == [0.25, 0.5]


class Killed(BaseException):
    pass


def killed_at(monkeypatch, kind: str, path: Path, once: Path) -> None:
    """Die just before a file is written (kind `replace`) or removed (`unlink`), once another one exists."""
    owner = os if kind == 'replace' else Path
    action = getattr(owner, kind)

    def die(*args, **kwargs):
        if Path(args[-1 if kind == 'replace' else 0]) == path and once.exists():
            raise Killed
        return action(*args, **kwargs)

    monkeypatch.setattr(owner, kind, die)


@pytest.mark.parametrize('kind, name', [
    ('replace', 'epoch_2.pth'), ('replace', 'epoch_2.pth.sha256'), ('replace', 'last_checkpoint'),
    ('unlink', 'epoch_1.pth'), ('unlink', 'epoch_1.pth.sha256'), ('replace', 'best_score_epoch_2.pth'),
    ('unlink', 'best_score_epoch_1.pth')])
def test_killed_between_two_steps(images, tmp_path, monkeypatch, kind, name):
    """The keep list and the best one survive: what the killed process had still to delete is deleted later."""
    hook = dict(max_keep_ckpts=1, save_best='score', rule='greater')
    runner = build(config(images, tmp_path, 3, **hook))
    tell(runner, 0.1, 0.3)
    with monkeypatch.context() as patch:
        once = 'epoch_1.pth' if name == 'epoch_2.pth' else 'epoch_2.pth'
        killed_at(patch, kind, tmp_path / name, tmp_path / once)
        with pytest.raises(Killed):
            runner.train()
    cfg = config(images, tmp_path, 3, **hook)
    assert launch._find_resumed(cfg, 'auto') == [] and cfg.resume
    runner = build(cfg)
    tell(runner, *([0.3, 0.2] if Path(cfg.load_from).name == 'epoch_1.pth' else [0.2]))
    runner.train()
    kept = checkpoints(tmp_path)
    assert kept[-1] == 'epoch_3.pth' and len(kept) == 2, kept
    assert {p.name.removesuffix('.sha256') for p in tmp_path.glob('*.sha256')} == {*kept}


def test_no_file_of_another_run_is_deleted(images, tmp_path):
    """Resumed from elsewhere: this folder's files of the same names are not the ones in its lists."""
    hook = dict(max_keep_ckpts=1, save_best='score', rule='greater')
    runner = build(config(images, tmp_path / 'a', 2, **hook))
    tell(runner, 0.1, 0.2)
    runner.train()
    before = {p: sha256_of(p) for p in (tmp_path / 'a').glob('*.pth')}
    cfg = config(images, tmp_path / 'b', 4, **hook)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/epoch_2.pth').write_bytes(b'of another run')
    launch._find_resumed(cfg, str(tmp_path / 'a/epoch_2.pth'))
    runner = build(cfg)
    tell(runner, 0.3, 0.4)
    runner.train()
    assert {p: sha256_of(p) for p in (tmp_path / 'a').glob('*.pth')} == before
    assert checkpoints(tmp_path / 'b') == ['best_score_epoch_4.pth', 'epoch_2.pth', 'epoch_4.pth']


def test_several_best_published_and_elsewhere(images, tmp_path):
    runner = build(config(images, tmp_path / 'run', 2, save_best=['score', 'accuracy/top1'], rule='less', out_dir=str(
        tmp_path / 'out'), filename_tmpl='ckpt_{}.pth', published_keys=['state_dict', 'meta']))
    evaluate = runner.val_loop.evaluator.evaluate
    runner.val_loop.evaluator.evaluate = lambda size: dict(evaluate(size), score=1.0)
    runner.train()
    out = tmp_path / 'out/run'
    published = list(out.glob('*-????????.pth'))
    assert len(published) == 3 and all(sha256_of(p).startswith(p.stem[-8:]) for p in published)
    assert all(torch.load(p).keys() == {'state_dict', 'meta'} for p in published)
    assert {'ckpt_1.pth', 'ckpt_2.pth', 'best_score_ckpt_1.pth'} < {*checkpoints(out)}
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(out / 'ckpt_2.pth')


@pytest.mark.parametrize('hook, named', [
    (dict(save_best='mAP'), 'no mAP; it gives accuracy/top1'), (dict(out_dir='s3://bucket'), 'mounted'),
    (dict(backend_args=dict(backend='petrel')), 'backend_args')])
def test_settings_that_make_no_sense(images, tmp_path, hook, named):
    with pytest.raises(ConfigError, match=named):
        build(config(images, tmp_path, 1, **hook)).train()


def test_equal_to_mmengine_in_content(images, tmp_path):
    """Everything that mmengine puts into a checkpoint is there, and it resumes one of ours."""
    cfg = config(images, tmp_path / 'stock', 1)
    cfg.experiment_name = str(tmp_path / 'stock')
    allow_mm_checkpoints()
    Runner.from_cfg(cfg).train()
    build(config(images, tmp_path / 'ours', 1)).train()
    theirs, ours = (torch.load(tmp_path / name / 'epoch_1.pth') for name in ('stock', 'ours'))
    assert ours.keys() == theirs.keys() and ours['meta'].keys() - {'arch', 'pixels'} == theirs['meta'].keys()
    assert {k: ours['meta'][k] for k in ('epoch', 'iter', 'seed')} == dict(epoch=1, iter=4, seed=5)
    for key in theirs['state_dict']:
        assert torch.equal(ours['state_dict'][key], theirs['state_dict'][key])
    for key in ('optimizer', 'param_schedulers'):
        assert flat(ours[key]) == flat(theirs[key])
    cfg = config(images, tmp_path / 'on', 2)
    cfg.experiment_name, cfg.resume, cfg.load_from = 'on', True, str(tmp_path / 'ours/epoch_1.pth')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2


def flat(node) -> list:
    if isinstance(node, dict):
        return [(key, flat(node[key])) for key in sorted(node, key=str)]
    return [flat(n) for n in node] if isinstance(node, list | tuple) else getattr(node, 'tolist', lambda: node)()


def test_ranks_that_see_different_files_stop(images, tmp_path, monkeypatch):
    runner = build(config(images, tmp_path, 1))
    monkeypatch.setattr('mmincubation.engine.runner.all_gather_object', lambda mine: [mine, (True, 'epoch_2.pth')])
    with pytest.raises(CheckpointError, match='None, epoch_2.pth; is the disk shared'):
        runner.train()
