"""The suite of weight files, down to the commands that it would run; and what it refuses."""
import json
from argparse import Namespace

import pytest
import timm
import torch

from mmincubation.checkpoints import write_tensors
from mmincubation.errors import CheckpointError, ConfigError
from mmincubation.models import Arch, VisionTransformer
from mmincubation.suite import timm_weights, weights, work
from mmincubation.suite.main import main
from mmincubation.suite.runs import command_of, read_suite
from mmincubation.suite.settings import Settings
from tests.helpers.paths import ROOT
from tests.helpers.tools import Forked
from tests.helpers.toy import write_images

SMALL = Arch(embed_dim=192, depth=2, num_heads=3, patch_size=4, img_size=8, num_classes=3)


@pytest.fixture(autouse=True)
def in_small(monkeypatch):
    """A ViT-B of a few kilobytes; its recipes are not built here."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(weights.ARCHS, 'vit_base', SMALL)


@pytest.fixture
def saved(tmp_path):
    def save(name: str = 'mae.pth', arch: Arch = SMALL) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        torch.save(VisionTransformer(arch).state_dict(), path)  # timm's names, no header
        return str(path)
    return save


def arguments(*what: str, **given) -> Namespace:
    return Namespace(**dict(what=what, tasks=None, seeds=None, model=None, data=None, work_dir=None, jobs=None, gpus=1,
                            dry_run=False, print=False) | given)


def commands(args: Namespace) -> dict[str, list[str]]:
    suite = weights.suite_of(args, fetch=False)
    settings = Settings(suite)
    return {name: command_of(run, settings.of(run).options, settings.of(run).weights)[1:]
            for name, run in suite.runs.items()}


def test_each_file_in_each_recipe(saved):
    one, two = saved(), saved('other.pth')
    found = commands(arguments(one, f'mine={two}', seeds=2, work_dir='out', data=['coco=/my/coco', 'probe=/flowers']))
    assert list(found) == [f'{name}_{part}' for name in ('mae', 'mine') for part in (
        'coco_seed0', 'coco_seed1', 'ade20k_seed0', 'ade20k_seed1', 'probe')]
    assert found['mae_coco_seed1'] == [
        'tools/train.py', 'configs/coco/maskrcnn_vit_b_e2e.py', '--work-dir', 'out/mae_coco_seed1', '--resume',
        '--cfg-options', 'experiment.method=mae', 'train_dataloader.batch_size=16',
        *[f'{split}_dataloader.dataset.data_root=/my/coco' for split in ('train', 'val', 'test')],
        *[f'{split}_evaluator.ann_file=/my/coco/annotations/instances_val2017.json' for split in ('val', 'test')],
        'randomness.seed=1', f'model.backbone.init_cfg.checkpoint={one}']
    assert found['mine_ade20k_seed0'][1] == 'configs/ade20k/upernet_vit_b_e2e.py'
    assert found['mine_ade20k_seed0'][-1] == f'model.backbone.init_cfg.checkpoint={two}'
    assert found['mine_probe'] == ['tools/probe.py', two, '--train', '/flowers/train', '--val', '/flowers/val',
                                   '--method', 'mine', '--out', 'out/mine_probe']


def test_the_batch_of_the_recipe_is_kept(saved):
    run = weights.suite_of(arguments(saved(), tasks='coco', gpus=4), False).runs['mae_coco_seed0']
    assert run.options['train_dataloader.batch_size'] == 4
    with pytest.raises(ConfigError, match='--gpus 3: the batch of 16'):
        weights.suite_of(arguments(saved(), tasks='coco', gpus=3), False)


def test_what_the_file_has_otherwise_is_said_to_the_backbone(tmp_path):
    arch = Arch(**SMALL.to_dict() | dict(qkv_bias=False, init_values=1e-5, img_size=16))
    path = tmp_path / 'mae.safetensors'
    write_tensors(path, VisionTransformer(arch).state_dict(), dict(kind='vit', arch=arch.to_dict()))
    run = weights.suite_of(arguments(str(path), tasks='coco'), False).runs['mae_coco_seed0']
    assert run.options['model.backbone.arch'] == dict(
        name='vit_base', patch_size=16, img_size=64, qkv_bias=False, init_values=1e-5)


@pytest.mark.parametrize('name, patch, image, given', [
    ('vit_base', 16, 384, 384), ('vit_base', 14, 518, 592), ('vit_base', 8, 224, 448), ('vit_base', 16, 224, None),
    ('vit_huge', 14, 224, None), ('vit_huge', 14, 392, 448)])
def test_the_grid_of_positions_is_the_files(name, patch, image, given, monkeypatch):
    monkeypatch.undo()
    size = {value: key for key, value in weights.SIZES.items()}[name]
    arch = Arch(**weights.ARCHS[name].to_dict() | dict(patch_size=patch, img_size=image, num_classes=3))
    found = weights._arch_options(size, arch)
    assert found == ({'model.backbone.arch': dict(name=name, patch_size=16, img_size=given)} if given else {})
    arch = Arch(**arch.to_dict() | dict(init_values=1e-5))  # another field must not take the grid with it
    found = Arch.parse(weights._arch_options(size, arch)['model.backbone.arch'])
    assert found.grid == arch.grid


def test_stated_pixels_go_to_the_recipes(saved, tmp_path, monkeypatch):
    path = saved('other/mae.pth')
    beside = tmp_path / 'other/preprocessor_config.json'
    for mean, options in ([.485, .456, .406], {}), ([.5] * 3, {
            f'model.data_preprocessor.{key}': [127.5 if key == 'mean' else 58.395, 127.5 if key == 'mean' else 57.12,
                                               127.5 if key == 'mean' else 57.375] for key in ('mean', 'std')}):
        beside.write_text(json.dumps(dict(image_mean=mean, image_std=[.229, .224, .225])))
        run = weights.suite_of(arguments(path, tasks='coco'), False).runs['mae_coco_seed0']
        assert {key: value for key, value in run.options.items() if 'preprocessor' in key} == options
    assert timm_weights.timm_pixels('timm:vit_base_patch16_224.augreg_in21k').mean == [127.5] * 3


@pytest.mark.parametrize('name, image, pool', [
    ('deit3_small_patch16_224', 224, 'token'), ('deit3_base_patch16_384', 384, 'token'),
    ('flexivit_small', 240, 'token'), ('vit_medium_patch16_gap_240', 240, 'avg')])
def test_the_header_of_timms_file_is_that_of_its_model(name, image, pool, tmp_path, monkeypatch):
    model = timm.create_model(name, embed_dim=16, depth=1, num_heads=2)
    monkeypatch.setattr(timm_weights.timm, 'create_model', lambda *_, **__: model)
    arch = timm_weights.timm_arch(f'timm:{name}')
    assert (arch.img_size, arch.global_pool, arch.num_heads) == (image, pool, 2)
    found = weights.inspect_weights(timm_weights.fetch_timm(f'timm:{name}', tmp_path, True))
    assert found.arch == arch.to_dict()
    assert found.header['mean'] == ([123.675, 116.28, 103.53] if name.startswith('deit3') else [127.5] * 3)


@pytest.mark.parametrize('name, said', [
    ('vit_base_patch16_rpn_224', 'ResPostBlock'), ('vit_base_patch32_siglip_gap_256', 'the activation GELUTanh')])
def test_timms_vits_of_another_function_are_refused(name, said):
    with pytest.raises(CheckpointError, match=f'timm:{name}: this is no plain ViT, it has {said}.*TimmViT'):
        timm_weights.timm_arch(f'timm:{name}')


@pytest.mark.parametrize('given, said', [
    (dict(tasks='coco,voc'), "'voc' is no task; give some of coco,ade20k,probe"),
    (dict(seeds=0), '--seeds 0: give 1 or more'), (dict(gpus=0), '--gpus and --jobs: give 1 or more'),
    (dict(jobs=0), '--gpus and --jobs: give 1 or more'),
    (dict(model='vit_l'), 'has width 192 and depth 2, it is vit_b; leave --model out'),
    (dict(data=['ade=/x']), '--data ade: write TASK=DIR')])
def test_wrong_options_are_one_line(saved, capsys, given, said):
    assert main(arguments(saved(), dry_run=True, **given)) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith('error: ') and err.count('\n') == 1


def test_wrong_files_are_one_line(saved, tmp_path, capsys):
    text = tmp_path / 'notes.txt'
    text.write_text('no weights \x1b[31m')
    other = saved('other/mae.pth')
    wide, odd = (saved(f'{width}.pth', Arch(embed_dim=width, depth=2, num_heads=4, patch_size=4, img_size=8))
                 for width in (384, 40))
    for what, said in [
            ([str(text)], 'is no weight file'), ([f'{tmp_path}/gone.pth'], 'does not exist: give a weight file'),
            ([saved(), other], f'would both be called mae: write NAME={other}'),
            ([wide], 'no standard recipe (vit_b, vit_l, vit_h); take --tasks probe'),
            ([odd], 'tools/convert.py --arch num_heads=N writes'),
            (['timm:vit_b'], 'no pretrained model of this name'),
            (['timm:swin_tiny_patch4_window7_224'], 'this is a Swin Transformer'),
            ([saved(), 'suite.py'], 'give one suite file, or weights: not both'),
            (['gone.py'], 'config gone.py does not exist')]:
        assert main(arguments(*what)) == 2
        err = capsys.readouterr().err
        assert said in err and err.count('\n') == 1 and '\x1b' not in err
    assert main(arguments('s.py', seeds=0, data=['x'])) == 2
    assert '--seeds, --data: for weights; a suite file says it itself' in capsys.readouterr().err
    with pytest.raises(ConfigError, match='runs is missing'):
        read_suite('configs/_base_/runtime.py')


def test_weights_of_timm(tmp_path, monkeypatch, capsys):
    """Without a network it is one line; else the file is as wide as timm's model, and is fetched once."""
    whole = timm.create_model

    def create(name, pretrained=False, **given):
        if pretrained:
            raise OSError('no network')
        return whole(name, **given)

    monkeypatch.setattr(timm_weights.timm, 'create_model', create)
    word = 'timm:vit_tiny_patch16_224'
    with pytest.raises(CheckpointError, match=f'{word}: timm cannot download its weights .*no network.*NAME=FILE'):
        timm_weights.fetch_timm(word, tmp_path, True)
    monkeypatch.setattr(timm_weights.timm, 'create_model', lambda name, pretrained=False, **given: whole(name))
    path = timm_weights.fetch_timm(word, tmp_path, True)
    found = weights.inspect_weights(path)
    assert (found.arch['embed_dim'], found.arch['num_heads'], found.arch['norm_eps']) == (192, 3, 1e-6)
    monkeypatch.setattr(timm_weights.timm, 'create_model', None)
    assert timm_weights.fetch_timm(word, tmp_path, True) == path
    capsys.readouterr()


def test_a_dry_run_and_a_probe(saved, tmp_path, capsys, monkeypatch):
    args = arguments(saved(), tasks='coco,probe', work_dir=f'{tmp_path}/out', data=[f'probe={tmp_path}/toys'])
    args.dry_run = True
    assert main(args) == 1
    out = capsys.readouterr().out
    assert '2 runs in' in out and 'nothing runs now' in out and not (tmp_path / 'out').exists()
    assert "its config's header: about 110 A100 hours (14 hours on 8), an estimate" in out
    assert 'missing: train_dataloader.dataset.data_root: data/coco/ does not exist' in out
    assert f'missing: {tmp_path}/toys/train does not exist (mae_probe)' in out
    for split, per_class in (('train', 8), ('val', 4)):
        write_images(tmp_path / 'toys' / split, per_class)
    args.tasks = 'probe'
    assert main(args) == 0 and 'missing' not in capsys.readouterr().out
    args.dry_run = False
    monkeypatch.setattr(work, 'Popen', Forked)
    assert main(args) == 0
    assert main(args) == 0 and 'mae_probe: finished earlier, reused' in capsys.readouterr().out
    other = saved('others.pth', Arch(**SMALL.to_dict() | dict(num_classes=5)))
    assert main(arguments(f'mae={other}', **{k: v for k, v in vars(args).items() if k != 'what'})) == 2
    assert f'has results of other settings ({other} is another file now)' in capsys.readouterr().err


def test_jobs_for_slurm(saved, tmp_path, capsys):
    (tmp_path / 's.py').write_text(f"""
work_dir = {str(tmp_path / 'out')!r}
runs = [dict(name='data', command=['python', 'make.py']),
        dict(config='configs/imagenet/vit_b_e2e.py', seeds=1, needs='data'),
        dict(name='mask', config='configs/coco/maskrcnn_vit_b_e2e.py', seeds=1, weights='vit_b_e2e'),
        dict(name='probe', weights='vit_b_e2e_seed0', probe=dict(train='a b', val='c'))]""")
    assert main(arguments(str(tmp_path / 's.py'), print=True, gpus=8)) == 0
    _, data, first, mask, probe = capsys.readouterr().out.splitlines()
    assert data == 'python make.py'
    assert first.startswith('job0=$(GPUS=8 tools/slurm_train.sh "$PARTITION" vit_b_e2e_seed0 configs/imagenet/')
    assert mask.startswith('job1=$(GPUS=8 SRUN_ARGS="--dependency=afterok:$job0" tools/slurm_train.sh')
    assert f'checkpoint={tmp_path}/out/vit_b_e2e_seed0/weights/e2e_last.safetensors' in mask
    assert '--dependency=afterok:$job0 --wrap=' in probe and '--gres=gpu:1' in probe
