"""What the process that is forked for runs imports before the first of them; see forked.py."""

import mmincubation.datasets
import mmincubation.downstream
import mmincubation.engine.launch
import mmincubation.incubation  # noqa: F401
from tests.helpers import quick

quick.install()
