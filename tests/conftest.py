"""What many tests share."""
import pytest

from tests.toy import write_images


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """The toy's images, in a folder."""
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    return root
