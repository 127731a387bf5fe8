"""tools/check.py and its sections: a clean config passes, and whatever is wrong is listed at once."""
import hashlib
from argparse import Namespace

import pytest
import torch

from mmincubation.check.report import Report
from mmincubation.check.run import check, main
from mmincubation.check.weights import report_weights
from mmincubation.checkpoints import write_tensors
from mmincubation.config.load import load_config
from mmincubation.demo.data import write_demo_data
from mmincubation.models import VisionTransformer
from tests.helpers.tools import tool
from tests.helpers.toy import e2e_config, incubation_config, write_images
from tests.tools.test_downstream import ARCH, short_config


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_demo_data(folder / 'demo', cls_train=10, cls_val=10, scenes_train=8, scenes_val=2)
    write_tensors(folder / 'vit.safetensors', VisionTransformer(dict(ARCH, num_classes=10)).state_dict(),
                  dict(kind='vit', arch=dict(ARCH)))
    return folder


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder / 'images')
    return folder


def checked(cfg, folder, gpus: int = 1, img_per_s: float | None = None):
    """The report of a config."""
    return check(cfg, 'toy.py', Namespace(gpus=gpus, img_per_s=img_per_s, full=False, work_dir=str(folder / 'run')))


def lines(report) -> list[str]:
    return [str(problem) for problem in report.problems]


def test_a_clean_config_passes(data):
    done = tool('check.py', short_config('maskrcnn', data), '--work-dir', data / 'run', '--img-per-s', 4)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for said in ('No problem found', 'decoded' if 'decoded' in done.stdout else 'headers', '100.0 % of', 'sha256',
                 'batch 8 x 1 GPU', 'peak', 'CUDA context and fragmentation', 'GPU hours', 'free'):
        assert said in done.stdout, said
    assert not (data / 'run').exists()


def run_here(*args, **more) -> int:
    """The tool's command in this process."""
    config, *options = map(str, args)
    return main(Namespace(config=config, cfg_options=options, full=False, img_per_s=None,
                          **dict(dict(gpus=1, work_dir=None), **more)))


def test_everything_wrong_is_listed_at_once(data, capsys):
    name = 'vit-0000000a.safetensors'
    (data / name).write_bytes((data / 'vit.safetensors').read_bytes())
    (data / 'demo/scenes/train/img/00003.png').rename(data / 'hidden.png')
    code = run_here(
        short_config('maskrcnn', data), 'train_cfg.max_iter=3', f'model.backbone.init_cfg.checkpoint={data / name}',
        work_dir='/proc/run', gpus=3)
    (data / 'hidden.png').rename(data / 'demo/scenes/train/img/00003.png')
    shown = capsys.readouterr().out
    assert code == 1
    for said in ('max_iters', 'image 3: 00003.png', 'begins with 0000000a', '8 x 3 GPUs', '/proc', 'peak'):
        assert said in shown, (said, shown)


@pytest.mark.parametrize('args, more, named', [
    (['configs/demo/vit_demo_e2.py'], {}, 'vit_demo_e2e'), (['configs/demo/vit_demo_e2e.py'], dict(gpus=0), '--gpus'),
    (['configs/demo/vit_demo_e2e.py', 'word'], {}, 'key=value'),
    (['configs/_base_/runtime.py'], {}, 'no model, train_dataloader, train_cfg')])
def test_wrong_commands(args, more, named, capsys):
    assert run_here(*args, **more) == 2
    error = capsys.readouterr().err
    assert named in error and len(error.splitlines()) == 1


def test_classification_with_phases_and_time(images):
    cfg = incubation_config(images / 'images', images / 'work', epochs=(2, 1, 1))
    report = checked(cfg, images, img_per_s=10)
    text = report.text()
    assert not report.problems, text
    assert 'meta: 2 epochs, 8 iterations' in text and 'module_1: 1 epochs, 4 iterations' in text
    # 24 images an epoch at 10 a second through 4 blocks: meta 2 epochs x 2/4, modules 3/4 each, fine-tuning 4/4
    seconds = 2.4 * (2 * 2 / 4 + 2 * 3 / 4 + 1)
    assert f'whole schedule: {seconds / 3600:,.2f} h' in text
    assert 'module_0: parameters' in text and 'kept for backward' in text


def recipe(images, **changes):
    return lines(checked(e2e_config(images / 'images', images / 'work', **changes), images))


@pytest.mark.parametrize('changes, expected, advice', [
    ({'auto_scale_lr': dict(base_batch_size=24)}, 'lr 0.01 is for 24; train with --auto-scale-lr (lr 0.0025', True),
    ({'auto_scale_lr': dict(base_batch_size=24)}, '--gpus 4, or --cfg-options train_dataloader.batch_size=24, or '
     '--cfg-options optim_wrapper.accumulative_counts=4', True),
    ({'param_scheduler': [dict(type='MultiStepLR', by_epoch=True, milestones=[1, 5])]},
     'milestones [5] of MultiStepLR', True),
    ({'param_scheduler': [dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=50)]},
     'LinearLR of train has end=50, but training ends after 8 iterations', True),
    ({'param_scheduler': [dict(type='LinearLR', by_epoch=True, start_factor=0.1, begin=2)]}, 'has begin=2, but', True),
    ({'train_dataloader.batch_size': 60}, '24 images (a rank) are less than one batch of 60', True),
    ({'train_dataloader.batch_size': 60, 'train_dataloader.drop_last': True}, 'make no whole batch of 60', False),
    ({'load_from': '{folder}/other.safetensors'}, 'mlp.fc1', False)])
def test_recipe_and_load_from(images, changes, expected, advice):
    """What would run, and may not be what is meant, is advice: the check ends with 0."""
    small = VisionTransformer(
        dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=8, num_classes=3, mlp_ratio=2.))
    write_tensors(images / 'other.safetensors', {f'vit.{k}': v for k, v in small.state_dict().items()}, {})
    changes = {k: v.format(folder=images) if isinstance(v, str) else v for k, v in changes.items()}
    report = checked(e2e_config(images / 'images', images / 'work', **changes), images)
    said = [*report.warnings, *lines(report)]
    assert len(said) == 1 and expected in said[0], said
    assert bool(report.warnings) == advice and 'warning' * advice in report.text()


def test_a_batch_as_the_recipe_has_it_by_gpus_and_accumulation(images):
    changes = {'auto_scale_lr': dict(base_batch_size=24), 'optim_wrapper.accumulative_counts': 2}
    cfg = e2e_config(images / 'images', images / 'work', **changes)
    assert not checked(cfg, images, gpus=2).problems


def weights_of(cfg) -> Report:
    report = Report()
    report.section('Weights')
    report_weights(cfg, report)
    return report


@pytest.mark.parametrize('changes, expected', [
    (dict(embed_dim=32), 'misshaped'), (dict(depth=28), 'missing'), (dict(norm_eps=1e-5), 'norm_eps')])
def test_weights_that_do_not_fit(data, changes, expected):
    cfg = load_config(short_config('upernet', data))
    if 'norm_eps' in changes:
        write_tensors(data / 'eps.safetensors', VisionTransformer(dict(ARCH, num_classes=10)).state_dict(),
                      dict(kind='vit', arch=dict(ARCH, norm_eps=1e-6)))
        cfg.model.backbone.init_cfg.checkpoint = str(data / 'eps.safetensors')
    cfg.model.backbone.arch.update(changes)
    if 'depth' in changes:
        cfg.model.backbone.out_indices = (5, 11, 17, 27)
    problems = lines(weights_of(cfg))
    assert any('model.backbone.init_cfg.checkpoint' in line and expected in line for line in problems), problems


def test_a_forward_pass_that_fails_is_the_models_fault(data):
    cfg = load_config(short_config('maskrcnn', data))
    cfg.model.neck.out_channels += 16
    problems = lines(checked(cfg, data))
    assert any(line.startswith('model: its forward pass fails: RuntimeError: ') and 'rpn_head.py' in line
               for line in problems), problems
    cfg.model.neck.in_channels += 16  # of which the config's problems know the key
    problems = lines(checked(cfg, data))
    assert [line for line in problems if 'channels' in line] == [
        'model.neck.in_channels is 80, the maps of model.backbone have 64 channels: make them equal']
    assert not any('could not be checked' in line for line in problems)


def test_the_hash_in_a_name_is_the_files(data):
    sha = hashlib.sha256((data / 'vit.safetensors').read_bytes()).hexdigest()
    path = data / f'vit-{sha[:8]}.safetensors'
    path.write_bytes((data / 'vit.safetensors').read_bytes())
    cfg = load_config(short_config('upernet', data))
    cfg.model.backbone.init_cfg.checkpoint = str(path)
    report = weights_of(cfg)
    assert not report.problems and sha in report.text() and 'format' in report.text()


def test_a_full_disk(images, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda path: Namespace(free=100))
    assert any('100' not in line and 'the checkpoints need' in line for line in recipe(images))


def test_a_model_that_cannot_be_built_is_a_problem_among_others(images):
    cfg = e2e_config(images / 'images', images / 'work', **{'model.arch': dict(embed_dim=15)})
    problems = lines(checked(cfg, images))
    assert any('embed_dim=15 is not divisible by num_heads=2' in line for line in problems)
    assert torch.get_default_device().type == 'cpu'
