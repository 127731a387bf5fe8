"""The configs of docs/tasks/own_*.md, read out of the pages, and their commands, on real data.

MMINCUBATION_REAL_DATA names the folder of these data (nuclei, camvid, coco_person). `.ci/run` sets it where one is.
"""
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

from mmincubation.check.data import report_data
from mmincubation.check.report import Report
from mmincubation.check.sampling import Sampling
from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.result import read_result
from tests.helpers.paths import ROOT
from tests.helpers.tools import tool

TASKS = dict(detection='coco/segm_mAP', segmentation='mIoU', classification='accuracy/top1')
DATA = Path(os.environ.get('MMINCUBATION_REAL_DATA') or 'not set')
real_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f'MMINCUBATION_REAL_DATA: {DATA}; set it to a folder with nuclei, camvid and coco_person')


def page(task: str) -> str:
    return (ROOT / f'docs/tasks/own_{task}.md').read_text()


def config_of(task: str) -> str:
    return re.search(r'```python\n(.*?)```', page(task), re.S)[1]


def commands(task: str) -> list[list[str]]:
    """The words of the page's commands, without `python tools/`."""
    [block] = re.findall(r'```\n(python tools.*?)```', page(task), re.S)
    lines = block.replace('\\\n', ' ').splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines]


def link_photos(folder: Path) -> None:
    """Photographs of one person: `close` if the person's box has a quarter of the picture, `far` below a twentieth."""
    for split in ('train', 'val'):
        content = json.loads((DATA / f'coco_person/instances_{split}.json').read_text())
        images = {image['id']: image for image in content['images']}
        for annotation in content['annotations']:
            image, (_, _, width, height) = images[annotation['image_id']], annotation['bbox']
            share = width * height / (image['width'] * image['height'])
            if share > 0.25 or share < 0.05:
                target = folder / split / ('close' if share > 0.25 else 'far') / image['file_name']
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(DATA.absolute() / 'coco_person' / split / image['file_name'])


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder as the reader's: the repository's configs, the data, and the pages' configs."""
    folder = tmp_path_factory.mktemp('own')
    (folder / 'data').mkdir()
    (folder / 'configs').symlink_to(ROOT / 'configs')
    for name in ('nuclei', 'camvid'):
        (folder / 'data' / name).symlink_to(DATA.absolute() / name)
    link_photos(folder / 'data/photos')
    for task in TASKS:
        (folder / f'own_{task}.py').write_text(config_of(task))
    return folder


@real_data
@pytest.mark.parametrize('task', TASKS)
def test_nothing_is_wrong_with_config_and_data(task, place, monkeypatch):
    monkeypatch.chdir(place)
    cfg, report = load_config(f'own_{task}.py'), Report()
    assert problems(cfg, 'train', ranks=1) == []
    report.section('Data')
    report_data(cfg, report, Sampling())
    assert not report.problems and not report.skipped, report.text()


@real_data
@pytest.mark.parametrize('task', TASKS)
def test_the_pages_try_trains_tests_and_writes_its_result(task, place):
    cfg = Config.fromfile(place / f'own_{task}.py')
    assert not cfg.get('custom_hooks') and cfg.experiment.task == task  # `experiment` alone asks for result.json
    tries = [words for words in commands(task) if 'work_dirs/try' in ' '.join(words)]
    assert [Path(words[0]).name for words in tries] == ['train.py', 'test.py']
    for words in tries:
        words = [word.replace(f'work_dirs/try_{task}', f'work_dirs/{task}') for word in words]
        done = tool(Path(words[0]).name, *words[1:], cwd=place)
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'Traceback' not in done.stderr
    result = read_result(place / f'work_dirs/{task}/result.json')
    assert TASKS[task] in result['metrics'] and result['experiment']['model'] == 'ViT-Ti'
    assert TASKS[task] in done.stdout + done.stderr


@pytest.mark.parametrize('task', TASKS)
def test_pages_are_short_and_their_last_commands_name_the_last_checkpoint(task):
    rest = page(task).replace(config_of(task), '')
    assert len(rest.split()) < 500
    loop = re.search(r'max_(?:iters|epochs)=(\d+)', config_of(task))
    assert re.search(rf'work_dirs/own_{task}/(?:iter|epoch)_{loop[1]}\.pth', commands(task)[-1][2])


MISTAKES = {
    'num_classes left': ('detection', 'roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),',
                         '', '1 classes, but model.roi_head.bbox_head.num_classes is 10; make them equal'),
    'wrong data_root': ('detection', "'data/nuclei/'", "'data/nucleus/'", 'data_root: data/nucleus/ does not exist'),
    'no _delete_': ('detection', '_delete_=True, name', 'name', "depth=24, num_heads=2 leave nothing of "
                    "name='vit_tiny'; give one or the other. In a config with a _base_ that gives the first: "
                    "arch=dict(_delete_=True, name='vit_tiny', ...)"),
    'neck left': ('detection', 'neck=dict(in_channels=192),', '', 'model.neck.in_channels is 64, the maps of '
                  'model.backbone have 192 channels: make them equal'),
    'void forgotten': ('segmentation', ', seg_pad_val=void', '', '255 in model.data_preprocessor.seg_pad_val; make '
                       'them equal'),
    'heads left': ('segmentation', 'in_channels=[192] * 4', 'in_channels=[768] * 4', 'model.decode_head.in_channels is '
                   '[768, 768, 768, 768], the maps of model.backbone have 192 channels'),
    'classes left': ('classification', ', num_classes=2', '', '2 classes, but model.arch.num_classes is 1000'),
    'no collate_fn': ('classification', "    collate_fn=dict(type='default_collate'),\n", '', "dataloader.collate_fn: "
                      "mmincubation.ImageFolder needs dict(type='default_collate')"),
}


@real_data
@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_with_culprit_and_remedy(mistake, place, monkeypatch):
    task, old, new, expected = MISTAKES[mistake]
    assert old in config_of(task)
    monkeypatch.chdir(place)
    Path('wrong.py').write_text(config_of(task).replace(old, new))
    assert expected in problems(load_config('wrong.py'), 'train', ranks=1)[0]
