"""The paper's rows are complete, and say what the headers of the configs and the pages quote."""
import ast
import re

import pytest
import yaml
from mmengine.config import Config

from mmincubation.leaderboard.reported import PAPER, add_reported, paper_rows, read_reported
from tests.helpers.paths import ROOT
from tests.test_docs import rows

TITLES = dict(coco=('box AP', 'box AP50', 'box AP75', 'mask AP', 'mask AP50', 'mask AP75'),
              ade20k=('mAcc', 'mIoU', 'mIoU (multi-scale)'))
DATA = dict(imagenet='ImageNet-1K', cifar100='CIFAR-100', coco='COCO', ade20k='ADE20K')
CONFIGS = [path for folder in ('imagenet', 'cifar100', 'coco', 'ade20k') for path in sorted(
    (ROOT / 'configs' / folder).glob('*.py')) if re.search(r'\d\.\d\*', path.read_text().split('\nRun:')[0])]


def value_of(model: str, data: str, method: str) -> dict[str, float]:
    """The metrics of the one row of these names."""
    found, = [row.metrics for row in paper_rows() if (row.model, row.data, row.method) == (model, data, method)]
    return found


def named(folder: str, experiment: dict) -> tuple[str, str]:
    """Model and method of a config as the paper's rows call them; the paper's detectors have no size."""
    model, method = experiment['model'], experiment['method']
    if model == 'DeiT-B':
        return model, 'e2e, FPN'
    return f'ViT{"-3x" * model.endswith("-3x")} (size not stated)' if folder == 'coco' else model, method


def test_the_file_is_valid_and_whole():
    found, faults = read_reported(PAPER, 'quoted')
    assert not faults
    count = {task: sum(row.task == task for row in found) for task in ('classification', 'detection', 'segmentation')}
    # 12 on ImageNet, 6 released weights, 4 short, 3 assembled, 4 with less data, 12 on CIFAR-100; COCO and one more.
    assert count == dict(classification=41, detection=5, segmentation=4)
    assert all(row.source for row in found) and len({row.source for row in found}) == 7


def data_of(folder: str, model: str) -> str:
    """The label of a config's data."""
    share = re.search(r'-(\d+)pct', model)
    return DATA[folder] + (f', {share[1]} %' if share else '')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_headers_of_configs(path):
    header = ast.get_docstring(ast.parse(path.read_text())).split('\nRun:')[0]
    experiment = Config.fromfile(path).experiment
    folder = path.parent.name
    numbers = [float(number) for number in re.findall(r'\d\d\.\d(?=\*| / )', header.split('Paper:')[1])]
    titles = ('box AP', 'mask AP') if experiment['model'] == 'DeiT-B' else TITLES.get(folder, ('top-1', ))
    data = data_of(folder, experiment['model'])
    assert experiment.get('data', data) == data
    model, method = named(folder, experiment)
    assert value_of(model, data, method) == dict(zip(titles, numbers, strict=True))


def test_headers_were_found():
    assert len(CONFIGS) == 20 + 4 + 13 + 4


def test_numbers_on_pages():
    """The tables of the page of ImageNet, its lines of released weights, and the costs of both pages."""
    page = (ROOT / 'docs/tasks/imagenet.md').read_text()
    quoted = {number for cells in rows(page) for title, cell in cells.items() if title.endswith('top-1*')
              for number in re.findall(r'\d\d\.\d', cell)}
    quoted |= set(re.findall(r'\d\d\.\d\d\d(?=\*)', page))
    known = {value for row in paper_rows() for value in row.metrics.values()}
    assert len(quoted) > 30 and {float(number) for number in quoted} <= known
    costs = set(re.findall(r'[\d,]{3,}(?=\*)', (ROOT / 'docs/tasks/trainings.md').read_text()))
    assert len(costs) == 8 and costs == {cost for row in paper_rows() for cost in re.findall(
        r'([\d,]{3,}) A100 hours', row.cost)}


def test_rows_are_marked_and_packaged():
    lines = [line for section in add_reported([], paper_rows()) for line in section.lines]
    assert len(lines) == len(yaml.safe_load(PAPER.read_text()))
    assert all(line.cells['method'].endswith('*') and line.cells['n'] == '-' and not line.runs for line in lines)
    assert '"leaderboard/paper.yaml"' in (ROOT / 'pyproject.toml').read_text()
