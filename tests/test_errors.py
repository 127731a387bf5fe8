"""Ctrl-C ends a tool with one line; a tool that nobody reads does its work."""
import os
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


UNHEARD = '''
import sys
from mmincubation.errors import quiet_interrupt, say_at_once
quiet_interrupt()
for _ in range(3):
    print('out', flush=True)
    print('err', file=sys.stderr)
    say_at_once('signal')
print('not flushed')
open(sys.argv[1], 'w').write('done')
sys.exit(75)
'''


def test_a_tool_that_nobody_reads_does_its_work(tmp_path):
    """As after Ctrl-C on `tool 2>&1 | tee log`, or in a closed terminal."""
    read, target = os.pipe()
    os.close(read)
    assert unheard(tmp_path, target) == 75 and (tmp_path / 'done').read_text() == 'done'


def test_what_a_full_disk_has_no_room_for_is_not_lost_in_silence(tmp_path):
    """`tool > table.md` would end well with half a table."""
    assert unheard(tmp_path, os.open('/dev/full', os.O_WRONLY)) not in (0, 75)
    assert not (tmp_path / 'done').exists()


def unheard(folder, target: int) -> int:
    return subprocess.run([sys.executable, '-c', UNHEARD, str(folder / 'done')], stdout=target, stderr=target,
                          cwd=ROOT).returncode
