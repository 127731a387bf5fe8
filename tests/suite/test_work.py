"""The work on a suite, with commands that are over at once: order, what is reused, failures, progress, signals."""
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmincubation.config.settings import recipe_of
from mmincubation.errors import INTERRUPTED, PREEMPTED, ConfigError
from mmincubation.provenance import dataset_name
from mmincubation.recovery.lock import lock
from mmincubation.suite import main, work
from mmincubation.suite.cost import Durations, clock
from mmincubation.suite.runs import make_suite
from mmincubation.suite.settings import FINISHED, OTHER, Settings
from tests.helpers.paths import ROOT
from tests.helpers.results import put
from tests.helpers.toy import e2e_config

FINISH = 'import shutil, sys; shutil.copy(*sys.argv[1:])'
SLEEP = 'import time; time.sleep(60)'


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Three trainings, the second of which needs the first, whose commands copy a result to where it belongs."""
    monkeypatch.chdir(tmp_path)
    e2e_config(tmp_path, tmp_path).dump(tmp_path / 'toy.py')
    entries = [dict(name='first'), dict(name='second', needs='first'), dict(name='third')]
    suite = make_suite(tmp_path / 'out', [dict(entry, config='toy.py') for entry in entries])
    cfg = Settings(suite).of(suite.runs['first']).cfg
    data = {kind: dataset_name(cfg[f'{kind}_dataloader'].dataset) for kind in ('train', 'val')}
    ready = put(tmp_path / 'ready', 'e2e', 50., seed=5, recipe=recipe_of(cfg, 1), experiment=dict(
        task='classification', model='toy', method='e2e'), data=dict(data, train_size=24, val_size=24))
    commands = {name: [sys.executable, '-c', FINISH, str(ready), str(run.results[0])]
                for name, run in suite.runs.items()}
    monkeypatch.setattr(work, 'command_of', lambda run, *_: commands[run.name])
    monkeypatch.setattr(main.subprocess, 'call', lambda command: 0)
    monkeypatch.setattr(main, 'wrong_runs', lambda *_: ())  # the toy has no data

    def do(jobs: int = 1, **given) -> int:
        return main.do(Settings(suite), jobs, [], poll=.02, **given)

    return SimpleNamespace(do=do, runs=suite.runs, commands=commands, suite=suite, ready=ready)


def test_runs_in_order_and_reuses(made, capsys):
    assert made.do() == 0
    out = capsys.readouterr().out
    places = [out.index(f'= {name}: finished in') for name in ('first', 'second', 'third')]
    assert places == sorted(places) and 'All runs finished' in out
    assert made.do() == 0
    out = capsys.readouterr().out
    assert out.count('finished earlier, reused') == 3 and '+' not in out


def test_results_are_copied_to_the_folder_that_the_suite_names(made, tmp_path):
    made.suite = replace(made.suite, results=tmp_path / 'kept/toy')
    kept = [made.suite.results / name / 'result.json' for name in made.runs]
    for _ in range(2):  # of runs that end now, and of those that ended earlier
        assert main.do(Settings(made.suite), 1, [], poll=.02) == 0
        assert [path.read_bytes() for path in kept] == [made.ready.read_bytes()] * 3
        shutil.rmtree(tmp_path / 'kept')


def test_what_can_start_does_start(made, capsys):
    made.commands['first'][2] = f'import time; time.sleep(.5); {FINISH}'
    assert made.do(jobs=2) == 0
    out = capsys.readouterr().out
    assert out.index('third: finished') < out.index('first: finished') < out.index('second: finished')


@pytest.mark.parametrize('renew', [False, True])
def test_results_of_other_settings(made, capsys, renew):
    made.do()
    capsys.readouterr()
    old = made.runs['first'].results[0].read_bytes()
    made.runs['first'] = replace(made.runs['first'], options={'optim_wrapper.optimizer.lr': 5.})
    assert Settings(made.suite).judge(made.runs['first'])[0] == OTHER
    if renew:  # the demo's way
        assert made.do(renew=True) == 1  # this command writes what it has always written
        assert 'first: ended, but' in capsys.readouterr().err
        new = json.loads(old)
        new['recipe']['optim_wrapper.optimizer.lr'] = '5'
        made.ready.write_text(json.dumps(new))
        assert made.do(renew=True) == 0
        out = capsys.readouterr().out
        assert '= first: finished in' in out and '= second: finished earlier' in out
        return
    with pytest.raises(ConfigError) as error:
        made.do()
    assert 'first: ' in str(error.value) and 'optim_wrapper.optimizer.lr was 0.01, is now 5' in str(error.value)
    assert 'move it away' in str(error.value) and made.runs['first'].results[0].read_bytes() == old


def test_what_depends_on_a_run_that_is_not_finished_is_judged_after_it(made, capsys):
    made.do()
    capsys.readouterr()
    made.runs['first'].results[0].unlink()
    assert made.do() == 0
    out = capsys.readouterr().out
    assert out.index('= first: finished in') < out.index('= second: finished earlier')


def test_a_failing_run_stops_only_those_that_need_it(made, capsys):
    made.commands['first'][2] = 'raise SystemExit("the \x1b[31mreason")'
    assert made.do(hint='Do as I say.') == 1
    out, err = capsys.readouterr()
    assert '= third: finished in' in out and '1 of 3 runs finished' in out
    assert 'first: failed with exit code 1; the end of' in err and 'the ?[31mreason' in err
    assert 'see it by: tail -n 40' in err and 'second: not run, it needs first' in err and 'Do as I say.' in err


@pytest.mark.parametrize('said, why', [
    ('error: what is wrong:\n  lr: 1 -> 2\n  (more)', 'error: what is wrong: lr: 1 -> 2 (more)'),
    ('Traceback:\n  here\ntorch.OutOfMemoryError: no memory\nfree it', 'torch.OutOfMemoryError: no memory free it'),
    ('DivergenceError: of one line', 'DivergenceError: of one line'), ('the last\nword', 'word')])
def test_the_end_says_why_from_the_first_line_of_the_reason_on(made, capsys, said, why):
    made.commands['first'][2] = f'raise SystemExit({said!r})'
    assert made.do() == 1
    assert f'  first: exit code 1, {why}; see' in capsys.readouterr().err.partition('Not finished:')[2]


def test_a_result_that_cannot_be_copied_fails_its_run_alone(made, tmp_path, capsys):
    (tmp_path / 'kept').write_text('a file')
    suite = replace(made.suite, results=tmp_path / 'kept')
    assert main.do(Settings(suite), 2, [], poll=.02) == 1
    out, err = capsys.readouterr()
    assert 'third: its result cannot be copied to' in err and 'second: not run, it needs first' in err
    assert '0 of 3 runs finished' in out


def test_no_run_goes_on_without_its_suite(made, monkeypatch):
    made.commands['first'][2] = SLEEP
    job = work.Work(Settings(made.suite), 1, [], poll=.02)
    job.plan()
    monkeypatch.setattr(job, '_collect', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.do()
    assert [running.process.poll() for running in job.running] == [-signal.SIGTERM]


def test_what_needs_a_run_that_was_not_run_is_not_run(made, capsys):
    """Whatever their order."""
    made.suite.runs.update({name: replace(made.runs[name], needs=needs)
                            for name, needs in dict(first=('second', ), second=('third', ), third=()).items()})
    made.commands['third'][2] = 'raise SystemExit(3)'
    assert made.do(jobs=3) == 1
    err = capsys.readouterr().err
    assert 'first: not run, it needs second' in err and 'second: not run, it needs third' in err


def test_a_missing_command_is_a_failed_run(made, capsys):
    made.commands['third'][0] = '/nowhere/python'
    assert made.do() == 1
    assert "third: error: [Errno 2]" in capsys.readouterr().err
    assert Settings(made.suite).judge(made.runs['second'])[0] == FINISHED


@pytest.mark.parametrize('number, code', [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, PREEMPTED)])
def test_signals_are_passed_on_and_the_work_goes_on_later(made, capsys, number, code):
    old = signal.signal(number, signal.default_int_handler)  # a process in the background of a shell ignores Ctrl-C
    noted = made.runs['first'].folder / 'suite.log'
    usual = made.commands['first'][2]
    made.commands['first'][2] = 'import signal, sys, time\nfor n in (2, 15): signal.signal(n, lambda n, _: ' \
                                'sys.exit(f"got {n}"))\nprint("ready", flush=True)\ntime.sleep(60)'

    def send() -> None:
        while not (noted.exists() and 'ready' in noted.read_text()):
            time.sleep(.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert made.do() == code
    signal.signal(number, old)
    assert f'got {int(number)}' in noted.read_text() and 'goes on from here' in capsys.readouterr().err
    made.commands['first'][2] = usual
    assert made.do() == 0


def test_a_second_signal_ends_what_does_not_listen(made):
    made.commands['first'][2] = f'import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\n{SLEEP}'
    for wait in (.5, .9):
        threading.Timer(wait, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    assert made.do() == PREEMPTED and time.monotonic() - began < 20


def test_waits_for_a_run_of_another_process(made, capsys):
    """A suite that was killed may have left it."""
    held = lock(made.runs['first'].folder)
    held.__enter__()
    threading.Timer(.3, held.__exit__, (None, None, None)).start()
    assert made.do() == 0
    out = capsys.readouterr().out
    assert out.index('first: another process does it') < out.index('= first: finished in')


def test_two_suites_do_not_share_a_folder(made):
    with lock(made.suite.work_dir), pytest.raises(ConfigError, match='is in use'):
        made.do()


def test_the_time_left(made):
    durations, runs = Durations(Settings(made.suite)), list(made.runs.values())
    assert durations.left(runs, [], 1) == 'time left not known yet'
    durations.add(runs[0], 100)  # the others have the same config
    began = time.monotonic() - 39.5
    assert durations.left(runs[1:], [(runs[0], began)], 2) == 'about 2:10 left'
    assert durations.left([*runs[1:], make_suite(Path(), [dict(name='x', command=['x'])]).runs['x']],
                          [(runs[0], began)], 2) == 'more than 2:10 left'
    assert durations.left([], [(runs[0], began - 400)], 2) == 'about 0:05 left'
    assert (clock(59.9), clock(754), clock(3 * 3600 + 62)) == ('0:59', '12:34', '3:01:02')


@pytest.mark.parametrize('line, phase, at, eta', [
    ('11/23 - mmengine - INFO - [module_2, phase eta 0:00:05] Epoch(train)  [9][ 50/125]  eta: 0:01:25  time: 1',
     'module_2', 'Epoch(train)[9][50/125]', '0:01:25'),
    ('11/23 - mmengine - INFO - Iter(train) [ 50/250]  base_lr: 2e-3  eta: 0:03:39  time: 1.16', None,
     'Iter(train)[50/250]', '0:03:39')])
def test_status_is_read_from_mmengines_log_lines(made, line, phase, at, eta):
    run = made.runs['first']
    run.folder.mkdir(parents=True)
    (run.folder / 'suite.log').write_text(f'{line}\n' * 2)
    assert work.Job(run, 0, None).status() == f'first: {f"{phase} " if phase else ""}{at} eta {eta}'


@pytest.mark.parametrize('gpus, jobs, expected', [
    (1, 3, ['3', '5', '7']), (2, 2, ['3,5', '3,5']), (1, 4, ['3', '5', '7', '3'])])
def test_each_run_has_its_devices_and_threads(made, monkeypatch, gpus, jobs, expected):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setenv('PORT', '29500')
    found = []
    monkeypatch.setattr(work, 'Popen', lambda command, env, **_: found.append(env))
    monkeypatch.setattr(work, 'cores', lambda: 8)
    todo = work.Work(Settings(made.suite, gpus), jobs, ['3', '5', '7'])
    for slot in range(jobs):
        todo._popen(made.runs['first'], slot)
    assert [env['CUDA_VISIBLE_DEVICES'] for env in found] == expected
    assert {env['OMP_NUM_THREADS'] for env in found} == {str(8 // jobs)}
    assert not any('PORT' in env for env in found)  # each finds a free one


def test_a_users_number_of_threads_holds_for_all_libraries(made, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.delenv('MKL_NUM_THREADS', raising=False)
    monkeypatch.setattr(work, 'cores', lambda: 8)
    show = [sys.executable, '-c', 'import torch; print(torch.__config__.parallel_info())']
    monkeypatch.setattr(work, 'command_of', lambda *_: show)
    run = made.runs['first']
    job = work.Work(Settings(made.suite, 1), 1, [])._popen(run, 0)
    assert job.wait() == 0
    info = (run.folder / 'suite.log').read_text()
    assert 'at::get_num_threads() : 1\n' in info and 'mkl_get_max_threads() : 1\n' in info


def test_the_demo_takes_all_cores_and_begins_anew(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found = []
    monkeypatch.setattr(main, 'do', lambda *args, **given: found.append((args, given)) or 0)
    assert main.do_file('suites/demo.py', 'make demo') == 0
    (settings, jobs, devices, hint), given = found[0]
    assert len(settings.suite.runs) == 15 and (jobs, hint, given) == (work.cores(), 'make demo', dict(renew=True))
    assert main.do_file('suites/gone.py', '') == 2 and 'config suites/gone.py does not exist' in capsys.readouterr().err
