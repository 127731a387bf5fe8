"""What many tests share, and the order of the files."""
import logging
import runpy
import subprocess
import sys
from shutil import copytree

import pytest

from tests.helpers import quick
from tests.helpers.paths import ROOT
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco
from tests.helpers.toy import write_images


@pytest.fixture(autouse=True)
def logs_again():
    """Some tools keep their process quiet to its end; other tests read logs."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """The toy's images, in a folder."""
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    return root


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    """Small data of the three tasks."""
    root = tmp_path_factory.mktemp('clean')
    write_images(root / 'folders')
    write_coco(root / 'coco')
    write_ade(root / 'ade')
    return root


@pytest.fixture
def root(clean, tmp_path):
    """A copy of `clean`, to be damaged."""
    return copytree(clean, tmp_path / 'data')


@pytest.fixture
def tool(request, monkeypatch, capsys):
    """The test file's `TOOL` in this process, where its heavy imports are paid once."""
    path = request.module.TOOL

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name='__main__')
        return subprocess.CompletedProcess(args, end.value.code, *capsys.readouterr())

    return run


FIRST = (
    'incubation/test_modes.py', 'recovery/test_preemption.py', 'configs/test_steps.py', 'tools/test_tools.py',
    'engine/test_compiling.py', 'engine/test_sharding_downstream.py', 'resumable/test_exact_downstream.py',
    'recovery/test_lost_processes.py', 'resumable/test_exact_resume.py', 'engine/test_sharding.py',
    'engine/test_no_waits.py', 'tools/test_downstream.py', 'configs/test_ade20k_data.py', 'check/test_memory.py')


def pytest_collection_modifyitems(items):
    """Files that take long come first; else one process would still be busy with them when the others are done."""
    order = {str(ROOT / 'tests' / name): i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(str(item.path), len(FIRST)))


def pytest_collection_finish(session):
    """Everything is imported now."""
    quick.install()
