"""The demo's driver: what it runs, what it reuses, what it says."""
import os
import sys

import pytest

from mmincubation.demo import run as pipeline
from mmincubation.demo.run import LINE, STEPS, Step
from tests.helpers.paths import ROOT


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Two dependent steps whose commands write their product."""
    monkeypatch.chdir(tmp_path)
    for name in ('first', 'second'):
        path = tmp_path / 'configs/demo' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
        os.utime(path, (0, 0))
    made = {'first': Step('first', 1), 'second': Step('second', 1, ('first', ))}
    monkeypatch.setattr(pipeline, 'STEPS', made)
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x'); print('ran', sys.argv[1])"
    monkeypatch.setattr(Step, 'command', lambda self: [sys.executable, '-c', write, str(self.product)])
    monkeypatch.setattr(pipeline.subprocess, 'call', lambda command: 0)
    return made


def test_runs_in_order_and_reuses(steps, capsys):
    assert pipeline.run_demo(poll=.02) == 0
    out = capsys.readouterr().out
    assert out.index('first: finished in') < out.index('+ python -c', out.index('first: finished in'))
    assert pipeline.run_demo(poll=.02) == 0
    out = capsys.readouterr().out
    assert 'first: finished earlier, reused' in out and 'second: finished earlier, reused' in out and '+' not in out


def test_a_newer_config_makes_its_step_and_what_needs_it_run_again(steps, capsys):
    pipeline.run_demo(poll=.02)
    capsys.readouterr()
    os.utime(steps['first'].config)
    later = steps['first'].product.stat().st_mtime + 5
    os.utime(steps['first'].config, (later, later))
    assert not steps['first'].finished()
    pipeline.run_demo(poll=.02)
    out = capsys.readouterr().out
    assert 'reused' not in out and out.count('+ python') == 2


def test_a_failing_step_is_named_with_the_end_of_its_log(steps, monkeypatch, capsys):
    monkeypatch.setattr(Step, 'command', lambda self: [sys.executable, '-c', 'raise SystemExit("the reason")'])
    assert pipeline.run_demo(poll=.02) == 1
    err = capsys.readouterr().err
    assert 'first failed with exit code 1' in err and 'the reason' in err and 'make clean-demo' in err


@pytest.mark.parametrize('line, phase, at, eta', [
    ('11/23 - mmengine - INFO - [module_2, phase eta 0:00:05] Epoch(train)  [9][ 50/125]  eta: 0:01:25  time: 1',
     'module_2', 'Epoch(train)  [9][', '0:01:25'),
    ('11/23 - mmengine - INFO - Iter(train) [ 50/250]  base_lr: 2e-3  eta: 0:03:39  time: 1.16', None, 'Iter(train) [',
     '0:03:39')])
def test_status_is_read_from_mmengines_log_lines(line, phase, at, eta):
    found = LINE.search(line)
    assert (found['phase'], found['eta']) == (phase, eta) and found['at'].startswith(at)


def test_every_config_of_the_demo_is_a_step():
    leaves = {p.stem for p in (ROOT / 'configs/demo').glob('*.py')}
    assert leaves == set(STEPS) - {'data'}
    assert all(set(s.needs) <= set(STEPS) for s in STEPS.values())
