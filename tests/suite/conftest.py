"""What the tests of suites share."""
import logging

import pytest


@pytest.fixture(autouse=True)
def loud():
    """A suite keeps its process quiet to the end; other tests read logs."""
    yield
    logging.disable(logging.NOTSET)
