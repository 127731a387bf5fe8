"""IncubationLoop inside an ordinary mmengine Runner."""
import json
import shutil

import pytest
import torch
from mmengine.runner import Runner
from safetensors.torch import load_file

from mmincubation.checkpoints import CheckpointError, digest, read_tensors
from mmincubation.compat.safe_globals import allow_mm_checkpoints
from tests.helpers.toy import e2e_config, incubation_config


def run(cfg) -> Runner:
    allow_mm_checkpoints()
    cfg.experiment_name = cfg.work_dir  # mmengine keeps one logger and message hub per name
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def weights(folder, name) -> dict:
    return load_file(folder / 'weights' / f'{name}.safetensors')


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('drop_path_rate', [0., 0.3])
def test_one_random_module_equals_e2e_bit_for_bit(images, tmp_path, drop_path_rate):
    run(e2e_config(images, tmp_path / 'e2e', 2, drop_path_rate))
    run(incubation_config(images, tmp_path / 'incub', (0, 2, 0), 1, drop_path_rate))
    assert same(weights(tmp_path / 'e2e', 'e2e_last'), weights(tmp_path / 'incub', 'module_0_last'))


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    run(incubation_config(images, folder, start='grow'))
    return folder


def test_one_run_makes_everything(whole):
    for name in ('meta', 'module_0', 'module_1', 'finetune'):
        for which in ('best', 'last'):
            assert weights(whole, f'{name}_{which}')
    assembled = weights(whole, 'assembled')
    assert same(assembled, {**weights(whole, 'module_0_last'), **weights(whole, 'module_1_last')})
    assert not same(assembled, weights(whole, 'finetune_last'))


def test_result_counts_every_phase(whole):
    result = json.loads((whole / 'result.json').read_text())
    phases = {p['name']: p for p in result['phases']}
    assert list(phases) == ['meta', 'module_0', 'module_1', 'assembled', 'finetune']
    assert [p['images'] for p in phases.values()] == [24, 24, 24, 0, 24]
    assert [p['block_forwards'] for p in phases.values()] == [24 * 2, 24 * 3, 24 * 3, 0, 24 * 4]
    assert all('accuracy/top1' in p['metrics'] for p in phases.values())
    assert result['images_seen'] == 96 and result['block_forwards'] == 24 * 12


def test_phases_alone_equal_the_one_run(images, whole, tmp_path):
    for phase in ('meta', 'module_1', 'module_0', 'finetune'):
        cfg = incubation_config(images, tmp_path / phase, start='grow')
        cfg.train_cfg.update(phase=phase, weights_dir=str(tmp_path / 'weights'))
        run(cfg)
    for name in ('meta_last', 'module_0_last', 'module_1_last', 'assembled', 'finetune_last'):
        assert same(weights(tmp_path, name), weights(whole, name)), name
    ours, theirs = (json.loads((f / 'result.json').read_text()) for f in (tmp_path, whole))
    assert [(p['name'], p['block_forwards'], p['metrics']) for p in ours['phases'] if p['name'] != 'assembled'] == \
        [(p['name'], p['block_forwards'], p['metrics']) for p in theirs['phases'] if p['name'] != 'assembled']
    assert ours['metrics'] == theirs['metrics']


def test_a_phase_alone_names_what_it_misses(images, tmp_path):
    cfg = incubation_config(images, tmp_path)
    cfg.train_cfg.phase = 'module_1'
    with pytest.raises(CheckpointError, match='phase module_1 needs .*meta_last.safetensors.*--phase'):
        run(cfg)


def kill_at(cfg, stop: str) -> None:
    """Run until the phase `stop` begins its first epoch, or its second if it has one."""
    class Killed(Exception):
        pass

    cfg.experiment_name = f'{cfg.work_dir}-killed'
    allow_mm_checkpoints()
    runner = Runner.from_cfg(cfg)

    def kill(runner, **_):
        loop = runner.train_loop
        if loop.phase_name == stop and loop.phase_epoch == min(1, loop.phase.epochs - 1):
            raise Killed

    runner._hooks[-1].before_train_epoch = kill
    with pytest.raises(Killed):
        runner.train()


@pytest.mark.parametrize('stop', ['meta', 'module_0', 'module_1', 'finetune'])
def test_resume_at_every_phase_ends_in_the_same_weights(images, whole, tmp_path, stop):
    kill_at(incubation_config(images, tmp_path, start='grow'), stop)
    run(incubation_config(images, tmp_path, start='grow', resume=stop != 'meta'))
    for name in ('meta_last', 'module_0_last', 'module_1_last', 'assembled', 'finetune_last'):
        assert same(weights(tmp_path, name), weights(whole, name)), name
    ours, theirs = (json.loads((f / 'result.json').read_text()) for f in (tmp_path, whole))
    assert ours['block_forwards'] == theirs['block_forwards']


def test_headers_tie_parts_to_their_meta_model(whole):
    meta, _ = read_tensors(whole / 'weights/meta_last.safetensors')
    for module in (0, 1):
        _, header = read_tensors(whole / f'weights/module_{module}_last.safetensors')
        assert (header['module'], header['division']) == (module, [2, 2])
        assert header['meta_digest'] == digest(meta)


def lr_curve(images, folder, recipe) -> list[float]:
    cfg = incubation_config(images, folder, (3, 0, 0), recipe=recipe)
    runner = Runner.from_cfg(cfg)
    rates = []
    runner._hooks[0].before_train_iter = lambda runner, **_: rates.append(
        runner.optim_wrapper.optimizer.param_groups[0]['lr'])
    runner.train()
    return rates


def test_paper_code_steps_by_epoch_and_lags_one(images, tmp_path):
    clean = lr_curve(images, tmp_path / 'clean', 'clean')
    code = lr_curve(images, tmp_path / 'code', 'paper_code')
    assert len(set(clean)) == 12  # every iteration has its own rate
    epochs = [code[i:i + 4] for i in range(0, 12, 4)]
    assert all(len(set(e)) == 1 for e in epochs)
    cosine = [1e-4 + (1e-2 - 1e-4) * (1 + torch.cos(torch.tensor(torch.pi * t / 3)).item()) / 2 for t in range(3)]
    assert [e[0] for e in epochs] == pytest.approx([cosine[0], cosine[0], cosine[1]])


@pytest.mark.parametrize('recipe, clipped', [('clean', True), ('paper_code', False)])
def test_clipping_and_decay_per_recipe(images, tmp_path, recipe, clipped):
    cfg = incubation_config(images, tmp_path, recipe=recipe)
    runner = Runner.from_cfg(cfg)
    seen = {}

    def look(runner, **_):
        groups = runner.optim_wrapper.optimizer.param_groups
        decayed = {id(p) for g in groups if g['weight_decay'] for p in g['params']}
        model, phase = runner.model, runner.train_loop.phase_name
        vit = model.meta if phase == 'meta' else model.target
        seen[phase] = (runner.optim_wrapper.clip_grad_kwargs is not None, id(vit.pos_embed) in decayed,
                             id(vit.cls_token) in decayed, id(vit.blocks[-1].mlp.fc1.weight) in decayed)

    runner._hooks[0].before_train_epoch = look
    runner.train()
    decays = recipe == 'paper_code'
    assert seen == dict(
        meta=(clipped, False, False, True), module_0=(clipped, decays, decays, False),
        module_1=(clipped, False, False, True), finetune=(clipped, False, False, True))


def test_paper_code_clips_under_amp(images, tmp_path):
    cfg = incubation_config(images, tmp_path, (1, 0, 0), recipe='paper_code')
    cfg.optim_wrapper.type = 'mmincubation.AutocastOptimWrapper'
    assert run(cfg).optim_wrapper.clip_grad_kwargs


@pytest.mark.parametrize('change, message', [
    (dict(phases=dict(metta=dict(epochs=1))), 'train_cfg.phases.metta is unknown; nearest valid: meta'),
    (dict(phases=dict(meta=dict(epoch=1))), 'train_cfg.phases.meta.epoch is unknown; nearest valid: epochs'),
    (dict(recipe='papercode'), "unknown recipe 'papercode'.*paper_code"),
    (dict(start='ramdom'), "unknown start 'ramdom'.*random"),
    (dict(phase='module_2'), "there is no phase 'module_2'.*module_1"),
])
def test_wrong_settings_name_the_culprit(images, tmp_path, change, message):
    cfg = incubation_config(images, tmp_path)
    cfg.merge_from_dict(dict(train_cfg=change))
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


def test_growth_alone_is_a_control(images, tmp_path):
    """With 0 epochs of incubation the target still begins as `start` says."""
    run(incubation_config(images, tmp_path / 'a', (1, 0, 1), start='grow'))
    result = json.loads((tmp_path / 'a/result.json').read_text())
    phases = {p['name']: p['metrics'] for p in result['phases']}
    assert phases['assembled'] == phases['meta']  # the grown model computes the meta model's function
    assert result['block_forwards'] == 24 * (2 + 4)
    shutil.rmtree(tmp_path / 'a')


@pytest.mark.parametrize('start', ['grow', 'stack'])
def test_a_control_without_incubation_resumes_and_runs_by_phases(images, tmp_path, start):
    """One run, a run that is killed in fine-tuning and resumed, and one run a phase end in the same weights."""
    run(incubation_config(images, tmp_path / 'whole', (1, 0, 2), start=start))
    kill_at(incubation_config(images, tmp_path / 'killed', (1, 0, 2), start=start), 'finetune')
    run(incubation_config(images, tmp_path / 'killed', (1, 0, 2), start=start, resume=True))
    for phase in ('meta', 'finetune'):
        cfg = incubation_config(images, tmp_path / phase, (1, 0, 2), start=start)
        cfg.train_cfg.update(phase=phase, weights_dir=str(tmp_path / 'phases/weights'))
        run(cfg)
    for folder in ('killed', 'phases'):
        for name in ('meta_last', 'assembled', 'finetune_last'):
            assert same(weights(tmp_path / folder, name), weights(tmp_path / 'whole', name)), (folder, name)
    first, second = (weights(tmp_path / 'whole', 'assembled')[f'blocks.{i}.mlp.fc2.weight'] for i in (0, 1))
    assert torch.equal(second, first if start == 'stack' else torch.zeros_like(first))


def test_fine_tuning_of_a_control_alone_needs_the_meta_model(images, tmp_path):
    cfg = incubation_config(images, tmp_path, (1, 0, 1), start='grow')
    cfg.train_cfg.phase = 'finetune'
    with pytest.raises(CheckpointError, match='phase finetune needs .*meta_last.safetensors.*--phase'):
        run(cfg)


def test_validations_change_no_weights(images, tmp_path):
    """So a curve may have as many points as one likes."""
    for interval in (1, 3):
        cfg = incubation_config(images, tmp_path / str(interval), (3, 0, 3), drop_path_rate=.3, start='grow')
        cfg.train_cfg.val_interval = interval
        run(cfg)
    for name in ('meta_last', 'finetune_last'):
        assert same(weights(tmp_path / '1', name), weights(tmp_path / '3', name)), name


def test_each_phase_has_its_own_optimiser_and_schedule(images, tmp_path):
    cfg = incubation_config(images, tmp_path)
    cfg.train_cfg.phases.finetune.update(
        optim_wrapper=dict(optimizer=dict(lr=5e-3)), param_scheduler=[dict(type='ConstantLR', factor=1.0)])
    cfg.train_cfg.phases.module_1 = dict(optim_wrapper=dict(optimizer=dict(lr=3e-3)))
    runner, seen = Runner.from_cfg(cfg), {}

    def look(runner, **_):
        schedulers = [type(s).__name__ for s in runner.param_schedulers]
        seen.setdefault(runner.train_loop.phase_name, []).append(
            (round(runner.optim_wrapper.optimizer.param_groups[0]['lr'], 6), schedulers))

    runner._hooks[0].before_train_iter = look
    runner.train()
    assert {phase: values[0] for phase, values in seen.items()} == dict(
        meta=(1e-2, ['CosineAnnealingLR']), module_0=(1e-2, ['CosineAnnealingLR']),
        module_1=(3e-3, ['CosineAnnealingLR']), finetune=(5e-3, ['ConstantLR']))
    assert seen['finetune'][-1][0] == 5e-3 and seen['module_1'][-1][0] < 3e-3


def test_schedules_that_do_not_fit_are_refused_before_the_first_phase(images, tmp_path):
    cfg = incubation_config(images, tmp_path)
    cfg.train_cfg.phases.finetune.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=60)]
    with pytest.raises(ValueError, match='phase finetune: the CosineAnnealingLR that begins at 60 would end at 4'):
        Runner.from_cfg(cfg).train()
    assert not (tmp_path / 'weights').exists()
    cfg.train_cfg.phases.finetune.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, end=0)]
    with pytest.raises(ValueError, match='that begins at 0 would end at 0 iterations'):
        Runner.from_cfg(cfg).train()
    cfg = incubation_config(images, tmp_path, recipe='paper_code')
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
    with pytest.raises(ValueError, match="paper_code.*by epochs.*by_epoch=True"):
        Runner.from_cfg(cfg).train()


def test_log_lines_name_the_phase_and_its_eta(images, tmp_path):
    cfg = incubation_config(images, tmp_path, log_level='INFO')
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    run(cfg)
    log = next(tmp_path.glob('*/*.log')).read_text()
    for phase in ('meta', 'module_0', 'module_1', 'finetune'):
        assert f'[{phase}, phase eta 0:00:0' in log and f'[{phase}] Epoch(val)' in log
    assert '[assembled] Epoch(val)' in log and '[assembled, phase eta' not in log


def test_early_stopping_ends_a_phase_and_begins_anew_in_the_next(images, tmp_path):
    """The second validation without an improvement of 1000 points stops: two epochs of six in each phase."""
    cfg = incubation_config(images, tmp_path, (6, 6, 6))
    cfg.custom_hooks.append(dict(
        type='EarlyStoppingHook', monitor='accuracy/top1', rule='greater', patience=1, min_delta=1000))
    run(cfg)
    result = json.loads((tmp_path / 'result.json').read_text())
    assert {p['name']: p['epochs'] for p in result['phases'] if p['name'] != 'assembled'} == dict(
        meta=2.0, module_0=2.0, module_1=2.0, finetune=2.0)
    assert weights(tmp_path, 'assembled') and weights(tmp_path, 'finetune_last')
