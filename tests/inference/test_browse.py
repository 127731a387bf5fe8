"""What tools/browse.py shows is what a step gets."""
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmincubation.inference.browse import look_at
from mmincubation.inference.browse_page import drawn_truth, numbers, to_html
from mmincubation.resumable.batches import resumable_loader
from mmincubation.resumable.draws import seed_process
from tests.helpers.models import TASKS, small_config

TOOL = 'tools/browse.py'
EVIL = '<script>alert(1)</script>\x1b[2J'


@pytest.fixture(scope='module', params=TASKS)
def config(request, tmp_path_factory):
    """(task, a small config of it with its data)."""
    return request.param, small_config(request.param, tmp_path_factory.mktemp(request.param))


def first_step(cfg) -> dict:
    """What the data preprocessor returns in a run's first step, by mmengine's own loader."""
    seed = cfg.randomness.seed
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        prepare = MODELS.build(cfg.model.get('data_preprocessor') or dict(type='mmincubation.ClsDataPreprocessor'))
        loader = resumable_loader(Runner.build_dataloader(cfg.train_dataloader.to_dict(), seed), seed)
        batch = next(iter(loader))
        seed_process(seed, 0, 0, 0)
        return prepare(batch, True) | dict(mean=prepare.mean, std=prepare.std)


def test_pixels_and_truth_are_those_of_the_first_step(config):
    task, cfg = config
    look, step = look_at(cfg, 'train', 2), first_step(cfg)
    for i, seen in enumerate(look.seen):
        values = (torch.from_numpy(seen.pixels.copy()).permute(2, 0, 1) - step['mean']) / step['std']
        assert (values - step['inputs'][i]).abs().max() * step['std'].max() < .51  # a half of 255: rounded
        assert seen.original is not None and seen.name.endswith(('.png', '.jpg'))
        if task == 'classification':
            assert seen.weights[step['labels'][i]] == 1
        elif task == 'detection':
            truth = step['data_samples'][i].gt_instances
            assert (seen.boxes == truth.bboxes.numpy()).all() and (seen.labels == truth.labels.numpy()).all()
            assert (seen.masks == truth.masks.to_ndarray()).all()
        else:
            assert (seen.classes == step['data_samples'][i].gt_sem_seg.data[0].numpy()).all()
            assert seen.classes.shape == seen.pixels.shape[:2]
    again, other = (to_html(look_at(cfg, 'train', 2, seed), 'c.py') for seed in (None, 9))
    assert to_html(look, 'c.py') == again != other


def test_numbers_are_those_of_the_images(config):
    task, cfg = config
    look = look_at(cfg, 'train', 4)
    found = numbers(look)
    assert len(look.seen) == 4 and found['images'].startswith('4 of ') and '123.675' in found['mean']
    height, width = look.seen[0].pixels.shape[:2]
    assert f'{width} x {height} (' in found['width x height after padding']
    if task == 'detection':
        assert found['objects'].startswith(f'{sum(len(seen.boxes) for seen in look.seen)}, ')
    if task == 'segmentation':
        share = np.mean(np.concatenate([seen.classes.ravel() for seen in look.seen]) == 255)
        assert found['ignored pixels (label 255)'] == f'{share:.1%}' and share > 0


def test_the_truth_of_validations_is_drawn_where_it_is(config):
    task, cfg = config
    [seen, *_] = (look := look_at(cfg, 'val', 3)).seen
    assert seen.of_file == (task != 'classification')
    if task == 'segmentation':
        assert seen.classes.shape == seen.original.shape[:2]
        assert (drawn_truth(seen.original, seen, look) != seen.original).any()
    if task == 'detection':
        with_objects = next(seen for seen in look.seen if len(seen.boxes))
        assert with_objects.masks.shape[1:] == with_objects.original.shape[:2]
    assert 'data:image/png' in to_html(look, 'c.py')


def test_validations_without_truth_are_shown(config):
    _, cfg = config
    cfg = deepcopy(cfg)
    steps = cfg.val_dataloader.dataset.get('pipeline') or []
    cfg.val_dataloader.dataset.pipeline = [step for step in steps if 'LoadAnnotations' not in step['type']]
    look = look_at(cfg, 'val', 2)
    assert len(look.seen) == 2 and all(seen.boxes is None and seen.classes is None for seen in look.seen)
    assert 'objects' not in numbers(look) and to_html(look, 'c.py')


def test_mixing_and_erasing_are_seen(images, tmp_path):
    cfg = small_config('classification', tmp_path, images)
    plain = look_at(cfg, 'train', 6)
    cfg.model.data_preprocessor = dict(
        type='mmincubation.ClsDataPreprocessor',
        mixup=dict(type='timm.data.Mixup', mixup_alpha=.8, label_smoothing=.1, num_classes=3))
    mixed = look_at(cfg, 'train', 6)
    both = [seen for seen in mixed.seen if (np.sort(seen.weights)[-2:] > .05).all()]
    assert both and all(abs(seen.weights.sum() - 1) < 1e-5 for seen in mixed.seen)
    assert ' + ' in to_html(mixed, '') and 'for each other class' in to_html(mixed, '')
    assert any((a.pixels != b.pixels).any() for a, b in zip(plain.seen, mixed.seen, strict=True))
    cfg.model.data_preprocessor = dict(
        type='mmincubation.ClsDataPreprocessor',
        erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=1., mode='pixel', device='cpu'))
    erased = look_at(cfg, 'train', 6)
    changed = [(a.pixels != b.pixels).any(-1) for a, b in zip(plain.seen, erased.seen, strict=True)]
    assert all(0 < pixels.mean() < 1 for pixels in changed)


def test_text_of_data_is_escaped_and_nothing_is_loaded(config):
    _, cfg = config
    look = look_at(cfg, 'train', 3)
    look.names = (EVIL, ) * len(look.names)
    for seen in look.seen:
        seen.name = 'x/<script>.png'
    page = to_html(look, EVIL)
    assert '<script' not in page and '\x1b' not in page and '&lt;script&gt;' in page
    assert "default-src 'none'" in page and 'script-src' not in page and ' style=' not in page
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', page)


def test_the_tool_writes_a_page_or_one_line(tool, images, tmp_path):
    cfg = small_config('classification', tmp_path, images)
    cfg.dump(tmp_path / 'c.py')
    done = tool(tmp_path / 'c.py', '--out', tmp_path / 'page.html', '--num', '100')
    assert done.returncode == 0 and '24 images' in done.stdout  # all of an epoch
    assert (tmp_path / 'page.html').read_text().count('<article>') == 24
    Config(dict(x=1)).dump(tmp_path / 'empty.py')
    cfg.train_dataloader.dataset.root = str(tmp_path / 'nowhere')
    cfg.dump(tmp_path / 'wrong.py')
    for words, said in (((tmp_path / 'empty.py', ), 'it has no model, train_dataloader'),
                        ((tmp_path / 'wrong.py', ), 'nowhere'), ((tmp_path / 'none.py', ), 'does not exist'),
                        ((tmp_path / 'c.py', '--num', '0'), '--num 0: give 1 or more')):
        done = tool(*words, '--out', tmp_path / 'no.html')
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / 'no.html').exists()
