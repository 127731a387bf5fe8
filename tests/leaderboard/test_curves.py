"""Curves: each step once, phases one after the other, runs by the names of the leaderboard."""
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmincubation.leaderboard.curves import find_curves
from tests.helpers.forked import trained
from tests.helpers.results import put
from tests.helpers.toy import incubation_config

TOOL = 'tools/curves.py'
ITERATION = 'mmincubation.resumable.loops.seed_process'
TIMES = {'time', 'data_time', 'memory'}


def write(run, start: str, *lines: dict, cut: str = '') -> None:
    folder = run / start / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(line)}\n' for line in lines) + cut)


def step(iteration: int, loss: float, **more) -> dict:
    return dict(lr=.1, loss=loss, iter=iteration, step=iteration) | more


def numbers(run) -> list[tuple]:
    (curve, ), _ = find_curves([run])
    return [(each.iteration, each.kind, each.phase, each.epoch,
             {key: value for key, value in each.values.items() if key not in TIMES}) for each in curve.logged]


def test_a_killed_and_resumed_incubation_gives_the_curve_of_an_unbroken_one(images, tmp_path):
    cfg = incubation_config(images, tmp_path / 'whole', (2, 1, 1), 2)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.dump(tmp_path / 'c.py')
    assert trained(tmp_path / 'c.py', tmp_path / 'whole')
    assert not trained(tmp_path / 'c.py', tmp_path / 'killed', kill_at=f'{ITERATION}:7')  # 5 and 6 run twice
    assert trained(tmp_path / 'c.py', tmp_path / 'killed')
    found = numbers(tmp_path / 'killed')
    assert found == numbers(tmp_path / 'whole')
    assert [each[0] for each in found if each[1] == 'train'] == list(range(1, 21))
    validated = [(4, 'meta'), (8, 'meta'), (12, 'module_0'), (16, 'module_1'), (16, 'assembled'), (20, 'finetune')]
    assert [(each[0], each[2]) for each in found if each[1] == 'val'] == validated
    (curve, ), _ = find_curves([tmp_path / 'killed'])
    assert curve.name == 'incub'  # of its result.json
    assert curve.phases() == [('meta', 0, 8), ('module_0', 8, 12), ('module_1', 12, 16), ('finetune', 16, 20)]


def test_what_a_later_start_did_again_or_has_not_reached_is_not_the_earlier_ones(tmp_path):
    write(tmp_path, '20300101_000000', *(step(i, i) for i in (10, 20, 30, 40)), cut='{"loss": 9, "iter": 50, "st')
    write(tmp_path, '20300102_000000', step(20, 2.5), dict(mIoU=3., step=0, at_iter=25))
    assert [(each[0], each[1], each[4].get('loss')) for each in numbers(tmp_path)] == [
        (10, 'train', 10), (20, 'train', 2.5), (25, 'val', None)]


def test_logs_of_other_processors_say_about_when_they_validated(tmp_path):
    write(tmp_path / 'epochs', '1', step(10, 1, epoch=1), dict(mIoU=1., step=1), step(20, 1, epoch=2))
    write(tmp_path / 'epochs', '2', dict(mIoU=2., step=2), step(30, 1, epoch=3))
    write(tmp_path / 'zero', '1', dict(mIoU=1., step=0), step(10, 1), dict(mIoU=2., step=0))
    write(tmp_path / 'steps', '1', step(10, 1), dict(mIoU=1., step=12))
    at = {run: [each[0] for each in numbers(tmp_path / run) if each[1] == 'val'] for run in ('epochs', 'zero', 'steps')}
    assert at == dict(epochs=[10, 20], zero=[0, 10], steps=[12])


def test_phases_that_ran_in_folders_of_their_own_follow_each_other(tmp_path):
    for name, count in (('finetune', 2), ('module_10', 1), ('module_2', 1), ('meta', 3)):
        write(tmp_path / 'run' / name, '1', *(step(i, i, epoch=i, **{f'phase/{name}': 1}) for i in range(1, count + 1)))
    (curve, ), _ = find_curves([tmp_path])
    assert curve.name == 'run' and [each.iteration for each in curve.logged] == list(range(1, 8))
    assert curve.phases() == [('meta', 0, 3), ('module_2', 3, 4), ('module_10', 4, 5), ('finetune', 5, 7)]
    assert curve.logged[-1].epoch == 7


def test_runs_have_the_names_of_the_leaderboard_and_else_of_their_folders(tmp_path):
    for i, (method, task, seed) in enumerate([('e2e', 'classification', 0), ('e2e', 'classification', 1),
                                              ('incub', 'classification', 0), ('incub', 'detection', 0)]):
        write(put(tmp_path, method, .5, task, seed).parent, f'{i}', step(1, 1))
    write(tmp_path / 'unfinished', '1', step(1, 1))
    names = sorted(curve.name for curve in find_curves([tmp_path])[0])
    assert names == ['e2e, seed 0', 'e2e, seed 1', f'incub ({tmp_path}/002_vit_demo_incub_0)',
                     f'incub ({tmp_path}/003_maskrcnn_incub_0)', 'unfinished']


def test_the_tool_draws_and_writes_tables(tool, tmp_path):
    run = tmp_path / '=evil $\\frac{$ <b>'
    write(run, '1', step(1, 1, **{'phase/meta': 1, '=x': 5}), step(2, float('nan'), **{'phase/module_0': 1}),
          {'mIoU': 7., 'step': 0, 'at_iter': 2, 'phase/module_0': 1})
    write(tmp_path / 'b', '1', *(step(i, 1 / i) for i in range(1, 60)))
    assert tool(tmp_path).returncode == 0
    picture = np.asarray(Image.open(tmp_path / 'curves.png').convert('RGB'))
    for colour in ((0, 114, 178), (213, 94, 0)):  # both runs are there
        assert (picture == colour).all(-1).sum() > 100
    done = tool(run, '--out', tmp_path / 'x.csv', '--keys', 'loss', '=x', 'mIoU')
    assert done.returncode == 0 and 'x.csv' in done.stdout
    rows = list(csv.reader(io.StringIO((tmp_path / 'x.csv').read_text())))
    name = "'=evil $\\frac{$ <b>"  # no spreadsheet executes it
    assert rows == [['run', 'phase', 'kind', 'epoch', 'iteration', 'loss', "'=x", 'mIoU'],
                    [name, 'meta', 'train', '', '1', '1.0', '5.0', ''],
                    [name, 'module_0', 'train', '', '2', 'nan', '', ''],
                    [name, 'module_0', 'val', '', '2', '', '', '7.0']]
    pictures = [tool(tmp_path, '--out', tmp_path / f'{i}.svg') and (tmp_path / f'{i}.svg').read_bytes() for i in (1, 2)]
    assert pictures[0] == pictures[1] and b'evil' in pictures[0] and b'<b>' not in pictures[0]


@pytest.mark.parametrize('content', ['', 'no json\n[1]\n{"loss": 1}\n{"iter": NaN, "loss": 1}\n' + '[' * 10**5])
def test_a_folder_without_a_run_is_named(tool, tmp_path, content):
    write(tmp_path / 'empty', '1', cut=content)
    done = tool(tmp_path / 'empty', tmp_path / 'nowhere')
    assert done.returncode == 2 and 'nowhere is no folder' in done.stderr
    assert 'empty holds no run that has logged numbers' in done.stderr and len(done.stderr.splitlines()) == 2
    write(tmp_path / 'run', '1', step(1, 1))
    assert tool(tmp_path / 'empty', tmp_path / 'run').returncode == 1
    assert (tmp_path / 'empty/curves.png').exists()


def test_wrong_words_end_in_one_line(tool, tmp_path):
    write(tmp_path / 'run', '1', step(1, 1))
    for words, said in ((('--keys', 'los'), '--keys los: no run has logged it; there are loss, lr'),
                        (('--out', 'x.pdf'), '--out x.pdf: give a name that ends in .png, .svg, .csv'),
                        (('--out', tmp_path / 'run/1/vis_data/scalars.json/x.csv'), 'File exists')):
        done = tool(tmp_path / 'run', *words)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
