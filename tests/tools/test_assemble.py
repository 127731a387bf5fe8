"""tools/assemble.py as a user calls it."""
import os
import subprocess
import sys
import time

import torch

from mmincubation.checkpoints import read_vit, sha256_of
from tests.helpers.paths import ROOT
from tests.incubation.test_assemble import equal, save_parts, save_public

TOOL = str(ROOT / 'tools/assemble.py')


def run_tool(*args, **env):
    """The tool in a process of its own, away from the repository."""
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, **env}, cwd=ROOT.parent, timeout=120)


def check_refused(result, *words):
    assert result.returncode == 2 and result.stdout == ''
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('assemble.py: error: '), result.stderr
    for word in words:
        assert str(word) in lines[0]


def test_tool_help_is_quick():
    run_tool('--help')
    start = time.perf_counter()
    result = run_tool('--help')
    assert result.returncode == 0 and 'PART' in result.stdout and time.perf_counter() - start < 1


def test_tool_joins(tool, tmp_path):
    target, paths = save_parts(tmp_path, [4, 2])
    out = tmp_path / 'new' / 'vit.safetensors'
    result = tool(*paths, '--out', out)
    assert result.returncode == 0, result.stderr
    assert equal(read_vit(out)[0], target)
    for word in (f'module 1: blocks 4..5 from {paths[1]}', sha256_of(paths[1]), sha256_of(out), f'{len(target)} keys'):
        assert word in result.stdout
    assert 'assumed' not in result.stdout


def test_tool_says_what_it_assumed(tool, tmp_path):
    _, paths, _ = save_public(tmp_path, [3, 3])
    result = tool(*paths, '--out', tmp_path / 'vit.safetensors')
    assert result.returncode == 0 and result.stdout.count('assumed: ') == 2


def test_tool_refuses_in_one_line_and_writes_nothing(tool, tmp_path):
    _, paths = save_parts(tmp_path, [3, 3])
    before = {path.name: sha256_of(path) for path in tmp_path.iterdir()}
    check_refused(tool(paths[0], '--out', tmp_path / 'vit.safetensors'), 'missing module 1')
    check_refused(tool(*paths, '--out', tmp_path / 'vit.pth'), '.safetensors')
    check_refused(tool(*paths, '--out', tmp_path / '.' / paths[0].name), 'is one of the parts')
    assert {path.name: sha256_of(path) for path in tmp_path.iterdir()} == before


class Evil:
    """A pickle that makes a folder when it is executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path, )


def test_tool_refuses_a_malicious_pickle_without_executing_it(tmp_path):
    _, paths, _ = save_public(tmp_path, [3, 3])
    content = torch.load(paths[1], weights_only=True)
    torch.save(dict(content, args=Evil(tmp_path / 'executed')), paths[1])
    result = run_tool(*paths, '--out', tmp_path / 'vit.safetensors',
                      TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1')  # not even a user's own setting opens the door
    check_refused(result, paths[1], 'mkdir', 'nothing was executed', 'safetensors')
    assert sorted(os.listdir(tmp_path)) == ['checkpoint_0.pth', 'checkpoint_1.pth']
    torch.load(paths[1], weights_only=False)
    assert (tmp_path / 'executed').is_dir()  # the pickle is a live one
