"""Ctrl-C ends a tool with one line."""
import signal
import subprocess
import sys

import pytest

from mmincubation.errors import INTERRUPTED
from tests.helpers.paths import ROOT

TOOL = '''
import os, signal
from mmincubation.errors import quiet_interrupt
quiet_interrupt(at_once={at_once})
try:
    os.kill(os.getpid(), signal.SIGINT)
    print('swallowed')
except BaseException:  # as an import may
    if {swallow}:
        print('swallowed')
    else:
        raise
'''


@pytest.mark.parametrize('at_once, swallow, code, said', [
    (False, False, -signal.SIGINT, 'Interrupted: stopped by Ctrl-C\n'),
    (True, True, INTERRUPTED, 'Interrupted: stopped by Ctrl-C, nothing is lost\n')])
@pytest.mark.parametrize('ignored', [False, True])
def test_ctrl_c_is_one_line_and_ignored_where_the_shell_says_so(at_once, swallow, code, said, ignored):
    action = signal.SIG_IGN if ignored else signal.SIG_DFL
    done = subprocess.run(
        [sys.executable, '-c', TOOL.format(at_once=at_once, swallow=swallow)], capture_output=True, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, action))
    seen = (done.returncode, done.stdout, done.stderr)
    assert seen == ((0, 'swallowed\n', '') if ignored else (code, '', said))
