"""A suite of real trainings: stopped, gone on with, reused, and refused when its settings change."""
import json
import os
import re
import signal
import threading
import time

import pytest

from mmincubation.result import read_result
from mmincubation.suite import work
from mmincubation.suite.main import do, main
from mmincubation.suite.plan import dry_run, wrong_runs
from mmincubation.suite.runs import make_suite, read_suite
from mmincubation.suite.settings import FINISHED, Settings
from tests.helpers.paths import ROOT
from tests.helpers.tools import Forked
from tests.helpers.toy import e2e_config, incubation_config
from tests.suite.test_weights import arguments


@pytest.fixture
def suite(images, tmp_path, monkeypatch):
    """An incubation of two seeds, and a classifier that begins with its weights."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(work, 'Popen', Forked)
    incubation_config(images, tmp_path, epochs=(1, 1, 20)).dump(tmp_path / 'incub.py')
    e2e_config(images, tmp_path, epochs=1).dump(tmp_path / 'e2e.py')
    text = f"""
work_dir = {str(tmp_path / 'out')!r}
runs = [dict(config={str(tmp_path / 'incub.py')!r}, seeds=2),
        dict(name='tuned', config={str(tmp_path / 'e2e.py')!r}, weights='incub', seeds=[1],
             options={{'experiment.method': 'tuned'}})]"""
    (tmp_path / 'study.py').write_text(text)
    return tmp_path / 'study.py'


def stop_when(path, number: int = signal.SIGTERM) -> None:
    """Send this process a signal once a file exists."""
    def wait() -> None:
        while not path.exists():
            time.sleep(.005)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait).start()


def test_stopped_resumed_reused_refused(suite, capfd):
    out, args = suite.parent / 'out', arguments(str(suite))
    stop_when(out / 'incub_seed0/last_checkpoint')
    assert main(args) == 75
    assert 'goes on from here' in capfd.readouterr().err and not (out / 'incub_seed1').exists()
    assert main(args) == 0
    said = capfd.readouterr().out
    for line in ('= incub_seed1: finished in', '= tuned_seed1: finished in', 'All runs finished', 'Classification'):
        assert line in said
    tuned = read_result(out / 'tuned_seed1/result.json')
    assert tuned['seed'] == 1 and tuned['experiment']['method'] == 'tuned'
    wrote = read_result(out / 'incub_seed1/result.json')['outputs']
    assert tuned['weights']['sha256'] in {output['sha256'] for output in wrote}

    assert main(args) == 0
    assert capfd.readouterr().out.count('finished earlier, reused') == 3
    _fewer_runs_in_the_same_folder(suite, capfd)
    suite.write_text(suite.read_text().replace("'tuned'}", "'tuned', 'train_cfg.max_epochs': 2}"))
    assert main(args) == 2
    err = capfd.readouterr().err
    assert err.startswith(f'error: tuned_seed1: {out}/tuned_seed1 has results of other settings (train_cfg.max_epochs')
    assert err.count('\n') == 1 and json.loads((out / 'tuned_seed1/result.json').read_text()) == tuned


def _fewer_runs_in_the_same_folder(suite, capfd) -> None:
    """The table is of these alone; a run that is wrong is named before the first begins."""
    fewer = suite.with_name('fewer.py')
    head, entry, _ = suite.read_text().partition('seeds=2)')
    fewer.write_text(f"""{head}seeds=1),
        dict(name='wrong', config={str(suite.parent / 'e2e.py')!r}, options={{'train_cfg.max_epohcs': 3}})]""")
    assert main(arguments(str(fewer))) == 1
    said, err = capfd.readouterr()
    assert 'wrong: not run: train_cfg.max_epohcs: ' in err and '1 of 2 runs finished' in said
    assert re.search(r'incub +[0-9.]+ +baseline +1 ', said) and 'tuned' not in said


def test_a_stopped_run_whose_settings_change(suite, capfd):
    """It is not gone on with: the suite leaves it out, and says so before; the demo begins it anew."""
    text = suite.read_text().partition(',\n        dict(name')[0].replace('seeds=2', 'seeds=1') + ']'
    suite.write_text(text)
    folder = suite.parent / 'out/incub_seed0'
    stop_when(folder / 'last_checkpoint')
    assert main(arguments(str(suite))) == 75
    suite.write_text(text.replace('seeds=1', "seeds=1, options={'optim_wrapper.optimizer.lr': 5e-3}"))
    capfd.readouterr()
    why = f'{folder} holds an unfinished run of other settings (optim_wrapper.optimizer.lr: 0.01 -> 0.005): undo'
    assert main(arguments(str(suite), dry_run=True)) == 1
    said = capfd.readouterr().out
    assert 'incub_seed0  refused ' in said and f'wrong: {why}' in said
    assert main(arguments(str(suite))) == 1
    said, err = capfd.readouterr()
    assert f'incub_seed0: not run: {why}' in err and '+ ' not in said and (folder / 'last_checkpoint').exists()
    assert do(Settings(read_suite(suite)), 1, [], renew=True, poll=.1) == 0
    assert read_result(folder / 'result.json')['recipe']['optim_wrapper.optimizer.lr'] == '0.005'


def test_the_shape_of_weights_that_a_run_of_the_suite_writes(images, tmp_path, monkeypatch, capsys):
    """It is not known before that run, and known afterwards."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(work, 'Popen', Forked)
    e2e_config(images, tmp_path, epochs=1).dump(tmp_path / 'e2e.py')
    runs = [dict(name=name, config=str(tmp_path / 'e2e.py'), **more) for name, more in dict(
        base={}, tuned=dict(weights='base', options={'model.arch': 'auto'})).items()]
    suite = make_suite(tmp_path / 'out', runs)
    for state in ('to run', 'finished'):
        assert dry_run(Settings(suite), 1) == 0 and f'tuned  {state}' in capsys.readouterr().out
        assert do(Settings(suite), 1, [], poll=.1) == 0
    assert 'tuned: finished earlier, reused' in capsys.readouterr().out
    for file in (tmp_path / 'out/base').glob('weights/*'):
        file.unlink()  # deleted after use
    assert Settings(suite).judge(suite.runs['tuned'])[0] == FINISHED
    suite.runs['tuned'].results[0].unlink()
    assert Settings(suite).unlike_checkpoint(suite.runs['tuned']) == ''


def test_a_training_that_would_leave_no_result_does_not_begin(images, tmp_path):
    cfg = e2e_config(images, tmp_path, custom_hooks=[])
    cfg.pop('experiment')
    cfg.dump(tmp_path / 'bare.py')
    named = {f'experiment.{key}': key for key in ('model', 'method')} | {'experiment.task': 'classification'}
    suite = make_suite(tmp_path / 'out', [
        dict(name='bare', config=str(tmp_path / 'bare.py')),
        dict(name='named', config=str(tmp_path / 'bare.py'), options=named)])
    (run, line), = wrong_runs(Settings(suite), suite.runs.values())
    assert run.name == 'bare' and line.startswith('config: `experiment` is None') and "experiment = dict(task=" in line
