"""What is wrong with a config is one list: the tools refuse with its lines, and tools/check.py prints them all."""
from argparse import Namespace

import pytest
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook

from mmincubation.check.run import check, main
from mmincubation.config.data_errors import policy_problems
from mmincubation.config.hooks import hook_problems
from mmincubation.config.load import load_config
from mmincubation.config.problems import problems, refuse
from mmincubation.config.sharding import sharding_problems
from mmincubation.engine import launch
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images

PLATEAU = [dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater')]
EARLY = dict(type='EarlyStoppingHook', monitor='accuracy/top1')
SEGMENTATION = dict(
    type='ADE20KDataset', reduce_zero_label=True, pipeline=[dict(type='LoadAnnotations', reduce_zero_label=False)])
CROP = dict(type='timm.data.create_transform', input_size=16)
# Changes to the E2E control -> a line that says so.
E2E = [
    (dict(param_schedulers=[]), 'param_schedulers: nothing reads this top-level key'),
    ({'model.type': 'mmincubation.ViTClasifier'}, "'mmincubation.ViTClasifier' is not registered"),
    ({'optim_wrapper.optimizer.lrr': 1.}, 'optim_wrapper.optimizer.lrr: AdamW has no such key'),
    ({'train_dataloader.dataset.root': '/nowhere'}, 'train_dataloader.dataset.root: /nowhere does not exist'),
    (dict(load_from='/nowhere.pth'), 'load_from: /nowhere.pth does not exist'),
    ({'model.arch.dpeth': 3}, "unknown arch fields ['dpeth']"),
    ({'model.arch.num_heads': 3}, 'embed_dim=16 is not divisible by num_heads=3'),
    (dict(model=dict(_delete_=True, type='mmincubation.ViTClassifier')), 'model.arch is missing'),
    (dict(experiment=dict(task='poetry')), '`experiment.task`'),
    (dict(data_errors='x'), "data_errors='x': choose one of raise, skip"),
    (dict(max_data_errors=0), 'max_data_errors=0: give a number of samples'),
    ({'auto_scale_lr': dict(enable=True, base_batch_size=6), 'optim_wrapper.accumulative_counts': 2},
     'optim_wrapper.accumulative_counts=2: auto_scale_lr would not see it'),
    (dict(auto_scale_lr=dict(enable=True)), 'auto_scale_lr.base_batch_size is missing'),
    (dict(compile=dict(backnd='eager')), 'compile.backnd: torch.compile has no such option'),
    (dict(model_wrapper_cfg=dict(type='mmincubation.FullyShard'), custom_hooks=[dict(type='mmincubation.EMAHook')]),
     'custom_hooks.0: an EMAHook copies the whole model'),
    ({'train_dataloader.dataset.transform': CROP}, 'train_dataloader.dataset.transform.input_size is 16'),
    (dict(default_scope='mmseg', val_dataloader=dict(dataset=dict(SEGMENTATION, _delete_=True))),
     'val_dataloader.dataset.pipeline.0.reduce_zero_label is False'),
    (dict(optim_wrapper='x'), "optim_wrapper='x': give a dict"),
    (dict(train_cfg=3), 'train_cfg=3: give a dict'),
    (dict(model=[]), 'model=[]: give a dict'),
    (dict(custom_hooks=[3]), 'custom_hooks.0=3: give a dict'),
    (dict(default_hooks='x'), "default_hooks='x': give a dict"),
    (dict(auto_scale_lr=True), 'auto_scale_lr=True: give a dict'),
    (dict(work_dir=3), 'work_dir=3: give text'),
    ({'train_dataloader.dataset': 'x'}, "train_dataloader.dataset='x': give a dict"),
    ({'train_dataloader.sampler': None}, 'train_dataloader.sampler is missing'),
    ({'train_dataloader.batch_size': 0}, 'train_dataloader.batch_size=0: give a number of images'),
    ({'optim_wrapper.optimizer': 'AdamW'}, "optim_wrapper.optimizer='AdamW': give a dict"),
    (dict(val_evaluator=None), 'val_evaluator: missing beside val_dataloader, val_cfg'),
]
# Changes to an incubation -> a line that says so.
INCUBATION = [
    ({'train_cfg.phases.metta': dict(epochs=1)}, 'train_cfg.phases.metta is unknown; nearest valid: meta'),
    ({'train_cfg.phase': 'module_9'}, "there is no phase 'module_9'"),
    ({'train_cfg.phases': 'x'}, "train_cfg.phases='x': give a dict"),
    ({'train_cfg.phases.meta': 3}, 'train_cfg.phases.meta=3: give a dict'),
    ({'train_cfg.phases.meta.epochs': '1'}, "train_cfg.phases.meta.epochs='1': give a number"),
    ({'train_cfg.mode': 'parallel'}, 'the same number of processes, this run has 1'),
    ({'train_cfg.start': 'ramdom'}, "unknown start 'ramdom'"),
    ({'train_cfg.recipe': 'papercode'}, "unknown recipe 'papercode'"),
    ({'train_cfg.recipe': 'paper_code', 'param_scheduler': [dict(type='CosineAnnealingLR', by_epoch=False)]},
     "recipe='paper_code' moves the learning rate by epochs"),
    ({'train_cfg.phases.finetune.param_scheduler': [dict(type='CosineAnnealingLR', begin=6)]},
     'phase finetune: the CosineAnnealingLR that begins at 6 would end at 1 epochs'),
    ({'train_cfg.mode': 'joint', 'train_cfg.recipe': 'paper_code', 'model.arch.depth': 6, 'model.modules': [2, 1, 2, 1],
      'train_cfg.phases.module.drop_path_rate': 0.3}, 'modules trained jointly share the meta blocks before them'),
    ({'model.modules': 3}, '4 blocks do not divide into 3'),
    ({'model.modules': 'x'}, "modules='x': give a number of modules"),
    (dict(custom_hooks=[dict(type='EMAHook')]), "mmengine's EMAHook would average over the phases"),
    ({'train_cfg.mode': 'joint', 'custom_hooks': [EARLY]},
     "custom_hooks.0: one EarlyStoppingHook sees the scores of all modules mixed in mode='joint'"),
    ({'train_cfg.mode': 'joint', 'custom_hooks': [dict(EARLY, type='tests.config.test_problems.OwnStopping')]},
     "custom_hooks.0: one EarlyStoppingHook sees the scores of all modules mixed in mode='joint'"),
    ({'train_cfg.phases.finetune.epochs': 0, 'default_hooks.checkpoint.save_best': 'accuracy/top1'},
     'default_hooks.checkpoint.save_best: it counts the whole model, which this run does not train'),
    ({'train_cfg.mode': 'joint', 'default_hooks.early': EARLY}, 'default_hooks.early: one EarlyStoppingHook'),
    ({'train_cfg.mode': 'joint', 'param_scheduler': PLATEAU},
     'param_scheduler: a ReduceOnPlateauLR would see the scores of all modules mixed'),
    ({'train_cfg.recipe': 'paper_code', 'param_scheduler': PLATEAU},
     "param_scheduler: recipe='paper_code' moves the learning rate by epochs alone, ['ReduceOnPlateauLR'] by a score"),
]
# Changes to the E2E control that stop a test -> a line that says so.
TESTED = [
    (dict(test_evaluator=None), 'the config cannot be tested: it has no test_evaluator'),
    ({'test_dataloader.dataset.root': '/nowhere'}, 'test_dataloader.dataset.root: /nowhere does not exist'),
    (dict(test_evaluator=['x']), "test_evaluator.0='x': give a dict"),
    (dict(test_dataloader=3), 'test_dataloader=3: give a dict'),
    ({'model.arch.dpeth': 3}, "unknown arch fields ['dpeth']"),
]
CASES = [*((e2e_config, 'train', *case) for case in E2E), *((incubation_config, 'train', *case) for case in INCUBATION),
         *((e2e_config, 'test', *case) for case in TESTED)]


class OwnStopping(EarlyStoppingHook):
    """A user's."""


def test_hooks_are_known_by_their_class(images, tmp_path):
    """Whatever they are called, and given as a class too."""
    cfg = incubation_config(images, tmp_path)
    cfg.train_cfg.mode = 'joint'
    cfg.custom_hooks = [dict(EARLY, type=OwnStopping)]
    assert any('sees the scores of all modules mixed' in line for line in hook_problems(cfg))
    cfg.custom_hooks = [dict(type='mmincubation.EMAHook')]
    assert list(hook_problems(cfg)) == []
    cfg.model_wrapper_cfg = dict(type='mmincubation.FullyShard')
    assert any('custom_hooks.0: an EMAHook copies' in line for line in sharding_problems(cfg))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder, per_class=2)
    return folder


def write(build, images, folder, changes: dict):
    """`folder`/run.py, the config that `build` makes with changes."""
    cfg = build(images, folder / 'run')
    cfg.merge_from_dict(changes)
    cfg.dump(folder / 'run.py')
    return folder / 'run.py'


def refused(capsys, path, mode: str, **given) -> list[str]:
    """The lines that a tool says as it refuses the config at `path`."""
    code = getattr(launch, mode)(arguments(path, checkpoint='/no/checkpoint.pth', **given))
    said = capsys.readouterr().err
    assert code == 2 and said.startswith('error: '), said
    return said.removeprefix('error: ').splitlines()


def report(cfg, gpus: int = 1):
    """What tools/check.py finds."""
    return check(cfg, 'run.py', Namespace(gpus=gpus, img_per_s=None, full=False, work_dir='/tmp/run'))


def reported(cfg, gpus: int = 1) -> list[str]:
    return [str(problem) for problem in report(cfg, gpus).problems]


@pytest.mark.parametrize('build, mode, changes, named', CASES, ids=[f'{c[1]}-{c[3][:40]}' for c in CASES])
def test_the_tools_refuse_with_what_the_check_lists(build, mode, changes, named, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmincubation.check.run._report_memory', lambda *args: [])  # takes a training step
    path = write(build, images, tmp_path, changes)
    found = problems(load_config(path), mode, ranks=1)
    assert any(named in line for line in found), found
    assert refused(capsys, path, mode) == found
    assert not (tmp_path / 'run').exists()
    listed = reported(load_config(path))
    assert [line for line in listed if line in found] == found


@pytest.mark.parametrize('build, changes', [
    (e2e_config, {}), (incubation_config, {}), (incubation_config, dict(param_scheduler=PLATEAU)),
    (incubation_config, {'train_cfg.mode': 'joint', 'train_cfg.phases.finetune.param_scheduler': PLATEAU})])
def test_right_configs_have_none(build, changes, images, tmp_path):
    cfg = build(images, tmp_path / 'run', **changes)
    assert problems(cfg, 'train', ranks=1) == problems(cfg, 'test', ranks=1) == []
    refuse(cfg, 'train', ranks=1)
    assert not report(cfg).problems


def test_all_come_at_once_and_each_once(images, tmp_path, capsys):
    cfg = incubation_config(images, tmp_path / 'run', data_errors='x', max_data_errors=0, param_schedulers=[], **{
        'train_cfg.start': 'ramdom', 'train_cfg.recipe': 'papercode', 'optim_wrapper.optimizer.lrr': 1,
        'train_cfg.phases.module.optim_wrapper': dict(clip_grad=None), 'experiment.task': 'poetry'})
    cfg.dump(tmp_path / 'run.py')
    lines = refused(capsys, tmp_path / 'run.py', 'train')
    words = ['param_schedulers: ', 'optim_wrapper.optimizer.lrr: ', 'module.optim_wrapper.optimizer.lrr: ',
             'experiment.task', 'papercode', 'ramdom', "data_errors='x'", 'max_data_errors=0']
    assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines, strict=True)), lines


def test_ranks_on_a_cpu(images, tmp_path, capsys, monkeypatch):
    """SyncBN between CPU ranks, and modules that two ranks cannot share: what only a launcher shows."""
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '3')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    cfg = incubation_config(images, tmp_path / 'run', **{'train_cfg.mode': 'parallel'})
    cfg.dump(tmp_path / 'run.py')
    (line, ) = refused(capsys, tmp_path / 'run.py', 'train', launcher='pytorch')
    assert 'this run has 3: start 2, 4, 6' in line and line in reported(load_config(tmp_path / 'run.py'), gpus=3)
    cfg = Config(dict(default_scope='mmseg', launcher='pytorch', model=dict(
        type='EncoderDecoder', decode_head=dict(type='UPerHead', norm_cfg=dict(type='SyncBN')))))
    assert any('SyncBN needs GPUs' in line for line in problems(cfg, 'train', ranks=2, gpu=False))
    assert not any('SyncBN needs GPUs' in line for line in problems(cfg, 'train', ranks=2, gpu=True))


@pytest.mark.parametrize('options', [dict(amp=True), dict(auto_scale_lr=True), dict(phase='meta')])
@pytest.mark.parametrize('changes', [
    dict(optim_wrapper='x', auto_scale_lr=3), dict(train_cfg=3), dict(train_cfg=None), dict(work_dir=3, model=[])])
def test_options_do_not_trip_over_a_malformed_config(options, changes, images, tmp_path, capsys):
    path = write(incubation_config, images, tmp_path, changes)
    assert refused(capsys, path, 'train', **options) == problems(load_config(path), 'train', ranks=1)


@pytest.mark.parametrize('options', [
    dict(tta=True), dict(show_dir='shown'), dict(format_only=''), dict(out='x.pkl'), dict(launcher='none')])
@pytest.mark.parametrize('changes', [
    dict(test_evaluator='x'), dict(test_dataloader=None), {'test_dataloader.dataset': 3}, dict(default_hooks=3)])
def test_options_of_a_test_do_not_either(options, changes, images, tmp_path, capsys):
    path = write(e2e_config, images, tmp_path, changes)
    assert refused(capsys, path, 'test', **options) == problems(load_config(path), 'test', ranks=1)


def test_what_an_option_brings_is_checked_too(images, tmp_path, capsys):
    e2e_config(images, tmp_path / 'run', **{'optim_wrapper.accumulative_counts': 2}).dump(tmp_path / 'run.py')
    lines = refused(capsys, tmp_path / 'run.py', 'train', auto_scale_lr=True)
    assert 'base_batch_size' in lines[0] and 'auto_scale_lr would not see it' in lines[1] and len(lines) == 2


def test_the_commands_say_the_same_where_there_is_nothing_to_train(images, tmp_path, capsys):
    e2e_config(images, tmp_path / 'run', train_cfg=None).dump(tmp_path / 'run.py')
    said = refused(capsys, tmp_path / 'run.py', 'train')
    assert said[0] == 'the config cannot be trained: it has no train_cfg'
    args = dict(config=str(tmp_path / 'run.py'), cfg_options=None, gpus=1, img_per_s=None, full=False, work_dir=None)
    assert main(Namespace(**args)) == 2 and capsys.readouterr().err == f'error: {said[0]}\n'


def test_our_own_bugs_are_not_taken_for_a_users_mistakes(images, tmp_path, monkeypatch):
    """An exception after a problem may be its consequence; without one it is a bug and must show."""
    def broken(cfg):
        yield from policy_problems(cfg)
        raise KeyError('bug')

    monkeypatch.setattr('mmincubation.config.problems.policy_problems', broken)
    with pytest.raises(KeyError, match='bug'):
        problems(e2e_config(images, tmp_path / 'run'), 'train')
    assert problems(e2e_config(images, tmp_path / 'run', data_errors='x'), 'train') == [
        "data_errors='x': choose one of raise, skip"]
