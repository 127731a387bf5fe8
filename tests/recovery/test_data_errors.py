"""Whole runs on data of which some is bad: stopped, or skipped, counted, killed and resumed."""
import json

import pytest

from tests.helpers.damage import PNG
from tests.helpers.forked import Run, trained
from tests.helpers.resumed import assert_same_run, killed_and_resumed
from tests.helpers.toy import e2e_config, incubation_config, write_images
from tests.resumable.test_exact_resume import ITERATION, drawing

BOTH = [11, 21]  # indices of the damaged images below


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """A folder with configs that draw in two persistent workers, and two damaged images in their training data."""
    folder = tmp_path_factory.mktemp('toy')
    write_images(folder / 'images')
    (folder / 'images/1/3.png').write_bytes(b'')
    (folder / 'images/2/5.png').write_bytes(PNG[:100])
    write_images(folder / 'val')
    skip = dict(data_errors='skip')
    cfgs = dict(stop=e2e_config(folder / 'images', 'run'), skip=e2e_config(folder / 'images', 'run', **skip),
                phases=incubation_config(folder / 'images', 'run', **skip))
    for name, cfg in cfgs.items():
        drawing(cfg).log_level = 'INFO'
        for kind in ('val', 'test'):
            cfg[f'{kind}_dataloader'].dataset.root = str(folder / 'val')
        cfg.dump(folder / f'{name}.py')
    return folder


def stops(folder, *args, tool: str = 'train') -> str:
    """The one line of a tool that stops."""
    run = Run(folder / 'out', tool, *args)
    code, text = run.code(), run.text()
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    assert code == 2 and len(lines) == 1 and 'Traceback' not in text, text
    return lines[0]


def skipped(work_dir) -> dict:
    return json.loads((work_dir / 'result.json').read_text())['data_errors']


def indices(work_dir) -> list[int]:
    return [entry['index'] for entry in skipped(work_dir)['first']]


@pytest.fixture(scope='module')
def whole(toy):
    """Work dir of a run that skips."""
    assert trained(toy / 'skip.py', toy / 'whole')
    return toy / 'whole'


def test_skipped_samples_are_reported(whole):
    assert skipped(whole)['skipped'] == 2 and indices(whole) == BOTH
    assert '2/5.png cannot be read' in skipped(whole)['first'][1]['fault']
    assert '2 samples of the training data were skipped' in (whole.parent / 'rank_0').read_text()


def test_a_killed_and_resumed_run_has_the_same_substitutes(toy, whole, tmp_path):
    killed_and_resumed(toy / 'skip.py', tmp_path / 'killed', [dict(kill_at=f'{ITERATION}:{at}') for at in (2, 6)])
    assert_same_run(tmp_path / 'killed', whole)
    assert skipped(tmp_path / 'killed') == skipped(whole)


def test_a_run_that_a_sample_has_stopped_goes_on_with_skip(toy, whole, tmp_path):
    """As the message says, without --allow-changed."""
    images, work_dir = toy / 'images', tmp_path / 'stopped'
    assert not trained(toy / 'skip.py', work_dir, kill_at=f'{ITERATION}:5')
    error = stops(tmp_path, toy / 'stop.py', '--work-dir', work_dir, '--resume')
    assert f'{images}/1/3.png cannot be read' in error or f'{images}/2/5.png cannot be read' in error
    assert 'train_dataloader.dataset, sample ' in error and '--cfg-options data_errors=skip' in error
    assert trained(toy / 'skip.py', work_dir)
    assert_same_run(work_dir, whole)


def test_the_counts_of_an_earlier_run_in_the_work_dir_are_forgotten(toy, tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / 'data_errors.rank3.jsonl').write_text('{"data": "x", "index": 0, "fault": "old"}\n')
    assert trained(toy / 'skip.py', work_dir)
    assert indices(work_dir) == BOTH
    (work_dir / 'result.json').unlink()
    assert Run(tmp_path / 'out', 'train', toy / 'stop.py', '--work-dir', work_dir, '--resume').code() == 0
    assert indices(work_dir) == BOTH  # another policy forgets nothing


def test_two_ranks_count_together(toy, tmp_path):
    assert trained(toy / 'skip.py', tmp_path / 'run', 2)
    assert indices(tmp_path / 'run') == BOTH


def test_phases_that_run_alone_count_together(toy, tmp_path):
    for phase in ('meta', 'module_0'):
        run = Run(tmp_path / 'out', 'train', toy / 'phases.py', '--work-dir', tmp_path / 'run', '--phase', phase)
        assert run.code() == 0, run.text()
        assert indices(tmp_path / 'run') == BOTH


def test_too_many_skipped_samples_stop_the_training(toy, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', '--work-dir', tmp_path / 'run', '--cfg-options', 'max_data_errors=1')
    assert 'more than max_data_errors=1' in error and '1/3.png' in error and '2/5.png' in error
    assert not (tmp_path / 'run/result.json').exists()


def test_a_skipped_validation_image_would_change_the_number(toy, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', '--work-dir', tmp_path / 'run', '--cfg-options',
                  f'val_dataloader.dataset.root={toy / "images"}')
    assert 'val_dataloader.dataset, sample 11' in error and 'they do not measure' in error


def test_test_raises_too(toy, whole, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', whole / 'weights/e2e_last.safetensors', '--work-dir', tmp_path / 'run',
                  '--cfg-options', f'test_dataloader.dataset.root={toy / "images"}', tool='test')
    assert 'test_dataloader.dataset, sample 11' in error and '1/3.png' in error
