"""What a newcomer has to read stays small: sizes of the central classes, and the files between a command and a step."""
import ast
import json
import subprocess
import sys

import pytest
from mmengine.config import Config

import mmincubation  # noqa: F401  makes mmcv.ops importable
from tests.helpers.paths import ROOT
from tests.helpers.shrink import shrink, write_data
from tests.helpers.toy import incubation_config

READING_PATH = [
    'README.md', 'docs/tour.md', 'configs/imagenet/vit_b_incub.py', 'configs/_base_/imagenet_224.py',
    'configs/_base_/incub.py', 'configs/_base_/runtime.py', 'tools/train.py', 'mmincubation/engine/launch.py',
    'mmincubation/incubation/loop.py', 'mmincubation/incubation/hybrid.py', 'mmincubation/vit/transformer.py']
# Runs a tool and says which files of the repository are on the stack of its first backward pass.
PROBE = """
import json, runpy, sys, traceback
from pathlib import Path
import torch
root, out, tool = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
backward = torch.Tensor.backward
def first(self, *args, **kwargs):
    files = dict.fromkeys(frame.filename for frame in traceback.extract_stack())
    own = [str(Path(f).relative_to(root)) for f in files if Path(f).is_relative_to(root) and '.venv' not in f]
    Path(out).write_text(json.dumps(own))
    torch.Tensor.backward = backward
    return backward(self, *args, **kwargs)
torch.Tensor.backward = first
sys.argv = sys.argv[3:]
runpy.run_path(tool, run_name='__main__')
"""


def lines_of(file: str, name: str, docstring: bool = True) -> int:
    """Lines of a class or a method (`Class.method`), its docstring counted or not."""
    node = ast.parse((ROOT / 'mmincubation' / file).read_text())
    for part in name.split('.'):
        node = next(n for n in node.body if getattr(n, 'name', None) == part)
    lines = node.end_lineno - node.lineno + 1
    if not docstring and ast.get_docstring(node):
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


@pytest.mark.parametrize('file, name, limit', [
    ('vit/transformer.py', 'VisionTransformer', 60), ('vit/transformer.py', 'VisionTransformer.forward', 5),
    ('downstream/backbone.py', 'ViTBackbone.forward', 12), ('incubation/hybrid.py', 'Hybrid.forward', 15),
    ('incubation/loop.py', 'IncubationLoop', 130)])
def test_central_code_stays_small(file, name, limit):
    lines = lines_of(file, name, docstring=name != 'ViTBackbone.forward')
    assert lines <= limit, f'{name} has {lines} lines'


def test_the_step_has_its_marks():
    """Load, forward, loss, backward, step, in this order, in one function of the loop."""
    tree = ast.parse(text := (ROOT / 'mmincubation/incubation/loop.py').read_text())
    step = next(n for n in tree.body if getattr(n, 'name', None) == 'training_step')
    comments = ' '.join(line.partition('#')[2] for line in text.splitlines()[step.lineno - 1:step.end_lineno])
    places = [comments.find(mark) for mark in ('load', 'forward', 'loss', 'backward', 'step')]
    assert -1 not in places and places == sorted(places)


def test_the_reading_path_is_short():
    words = {path: len((ROOT / path).read_text().split()) for path in READING_PATH}
    assert sum(words.values()) <= 5500, words


@pytest.fixture(scope='module')
def configs(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('structure')
    incubation_config(images, folder / 'incubation').dump(folder / 'incubation.py')
    write_data(folder)
    cfg = Config.fromfile(ROOT / 'configs/coco/maskrcnn_vit_b_incub.py')
    shrink(cfg, folder).dump(folder / 'coco.py')
    return folder


@pytest.mark.parametrize('name, expected', [
    ('incubation', ['tools/train.py', 'mmincubation/engine/launch.py', 'mmincubation/incubation/loop.py',
                    'mmincubation/resumable/loops.py']),
    ('coco', ['tools/train.py', 'mmincubation/engine/launch.py', 'mmincubation/resumable/loops.py'])])
def test_own_files_from_the_command_to_the_backward_pass(name, expected, configs, tmp_path):
    out = tmp_path / 'files.json'
    command = [sys.executable, '-c', PROBE, str(ROOT), str(out), str(ROOT / 'tools/train.py'),
               str(configs / f'{name}.py'), '--work-dir', str(tmp_path / 'work')]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(out.read_text()) == expected


def test_files_outside_the_package_stay_small_too():
    files = [path for folder in ('tests', 'bench', 'tools', 'configs') for path in (ROOT / folder).rglob('*.py')]
    assert {str(path): n for path in files if (n := len(path.read_text().splitlines())) > 300} == {}
