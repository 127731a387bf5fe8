"""What many tests share."""
from shutil import copytree

import pytest

from tests.helpers import quick
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco
from tests.helpers.toy import write_images


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


def pytest_collection_finish(session):
    """Everything is imported now."""
    quick.install()
