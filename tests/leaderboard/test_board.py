"""The leaderboard shows what the result files say, and survives what they should not say."""
import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmincubation.leaderboard.board import make_leaderboard
from mmincubation.leaderboard.collect import collect, newest_per_seed
from mmincubation.leaderboard.plot import curve, plot_costs
from mmincubation.leaderboard.stats import mean_std
from mmincubation.leaderboard.table import make_sections
from mmincubation.result import write_result
from tests.helpers.paths import ROOT

TOOL = ROOT / 'tools' / 'leaderboard.py'
TASK_METRICS = dict(
    classification=lambda value: {'accuracy/top1': value},
    detection=lambda value: {'coco/bbox_mAP': value, 'coco/segm_mAP': value - 0.05},
    segmentation=lambda value: {'mIoU': value, 'aAcc': value + 30})


def phase(name, images, value=None, blocks=16, seconds=10.0):
    return dict(name=name, epochs=1.0 if images else 0.0, images=images, block_forwards=images * blocks,
                seconds=seconds, metrics={} if value is None else {'accuracy/top1': value})


def put(folder: Path, method: str, value: float, task='classification', seed=0, **changes) -> Path:
    """Write one made-up result below `folder`."""
    model = dict(classification='vit_demo', detection='maskrcnn', segmentation='upernet')[task]
    phases = changes.pop('phases', [phase('train', 1000, value)])
    result = dict(
        schema=1, run=f'{model}_{method}', experiment=dict(task=task, model=model, method=method),
        config=f'configs/demo/{model}_{method}.py', config_sha256='a' * 64, git_commit='b' * 40, seed=seed,
        weights=None, outputs=[], data=dict(train='digits', train_size=100, val='digits', val_size=50),
        metrics=TASK_METRICS[task](value), phases=phases, images_seen=sum(p['images'] for p in phases),
        block_forwards=sum(p['block_forwards'] for p in phases), device_seconds=sum(p['seconds'] for p in phases),
        peak_memory_mib=512.0, hardware='a CPU', devices=1, versions=dict(torch='2.0'), pictures=[],
        finished_at='2030-01-01T00:00:00+00:00', **{})
    result.update(changes)
    path = folder / f'{result["run"]}_{seed}_{result["finished_at"][:10]}' / 'result.json'
    write_result(path, result)
    return path


def draw(result_path: Path, name='vis_image/0.png') -> None:
    picture = result_path.parent / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20, 10), 'red').save(picture)


def board(folder: Path):
    text, problems, replaced = make_leaderboard(folder, folder)
    return text, (folder / 'leaderboard.md').read_text(), (folder / 'leaderboard.html').read_text(), problems, replaced


def row_of(text: str, method: str) -> list[str]:
    return next(re.split(r'\s{2,}', line) for line in text.splitlines() if re.search(rf'\s{method}\s', line))


def test_tables_of_all_tasks(tmp_path):
    put(tmp_path, 'incub', 71.26, phases=[phase('meta', 38_400, 52.1, 4), phase('finetune', 2_000_000, 71.26)])
    put(tmp_path, 'incub', 0.431, 'detection', weights=dict(path='w', sha256='1234abcd' * 8, coverage='150/150 keys'))
    put(tmp_path, 'scratch', 20.04, 'segmentation')
    text, markdown, page, problems, _ = board(tmp_path)
    assert not problems
    sections = text.split('\n\n')
    assert [part.splitlines()[0] for part in sections] == ['Classification', 'Detection', 'Segmentation']
    assert row_of(sections[0], 'incub')[2:] == ['71.3', 'one seed', '2,038,400', '32.2', '20']
    assert 'meta: 1 epochs, 38,400 images, 10 s, top-1 52.1; finetune' in ' '.join(sections[0].split())
    assert row_of(sections[1], 'incub')[2:] == ['43.1', '38.1', 'one seed', '1,000', '10', '1234abcd']
    assert '150/150 keys' in sections[1]
    assert row_of(sections[2], 'scratch')[2:] == ['20.0', '50.0', 'one seed', '1,000', '10', 'none']
    assert '| 43.1 | 38.1 | one seed |' in markdown and '<td>43.1</td><td>38.1</td>' in page


def test_tasks_that_were_not_run_are_not_shown(tmp_path):
    put(tmp_path, 'e2e', 50.0)
    for form in board(tmp_path)[:3]:
        assert 'etection' not in form.replace('-detection', '') and 'egmentation' not in form
        assert 'incub -' not in form and 'scratch' not in form


def test_seeds_are_merged_with_sample_deviation(tmp_path):
    for seed, value in enumerate((60.0, 62.0, 67.0)):
        put(tmp_path, 'incub', value, seed=seed)
    put(tmp_path, 'e2e', 60.0)
    text = board(tmp_path)[0]
    assert row_of(text, 'incub')[2:4] == ['63.0 ± 3.6', '3 seeds']
    assert row_of(text, 'e2e')[2:4] == ['60.0', 'one seed']
    assert 'vit_demo: incub - e2e: top-1 +3.0 points (3 seeds against one seed)' in text
    assert mean_std([]) == '-'


def test_runs_on_other_data_are_neither_merged_nor_compared(tmp_path):
    put(tmp_path, 'incub', 60.0)
    put(tmp_path, 'incub', 80.0, seed=1, run='other', data=dict(train='x', train_size=1, val=None, val_size=None))
    put(tmp_path, 'e2e', 70.0, seed=1, run='third', data=dict(train='y', train_size=1, val=None, val_size=None))
    text = board(tmp_path)[0]
    assert text.count('one seed') == 3 and '±' not in text and 'points' not in text


def test_all_differences_are_in_points(tmp_path):
    for method, value in dict(incub=70.0, incub_random=64.0, e2e=61.5, scratch=10.0).items():
        put(tmp_path, method, value)
    for method, value in dict(incub=0.43, e2e=0.44).items():
        put(tmp_path, method, value, 'detection')
    lines = [line for section in make_sections(collect(tmp_path)[0]) for line in section.differences]
    assert [line.removesuffix(' (one seed each)') for line in lines] == [
        'vit_demo: incub - e2e: top-1 +8.5 points',
        'vit_demo: incub_random - e2e: top-1 +2.5 points',
        'vit_demo: incub - scratch: top-1 +60.0 points',
        'vit_demo: e2e - scratch: top-1 +51.5 points',
        'maskrcnn: incub - e2e: box AP -1.0, mask AP -1.0 points']


def test_best_comes_first(tmp_path):
    for method, value in dict(e2e=61.5, incub=70.0, scratch=10.0).items():
        put(tmp_path, method, value)
    (section, ) = make_sections(collect(tmp_path)[0])
    assert [line.cells[1] for line in section.lines] == ['incub', 'e2e', 'scratch']


def test_what_was_not_measured_is_a_dash(tmp_path):
    put(tmp_path, 'e2e', 0.0, metrics={}, block_forwards=None)
    put(tmp_path, 'e2e', -1.0, 'detection', metrics={'coco/bbox_mAP': -1.0})
    text = board(tmp_path)[0]
    detection = text[text.index('Detection'):]
    assert row_of(text, 'e2e')[2:6] == ['-', 'one seed', '1,000', '-']
    assert 'top-1 not measured: its result has no such number' in text
    assert row_of(detection, 'e2e')[2:4] == ['-', '-'] and 'mask AP not' not in text  # a detector of boxes alone
    assert 'box AP not measured: -1, the validation data have no object to find' in detection


def test_a_seed_that_measured_nothing_is_named_beside_the_mean_of_the_others(tmp_path):
    put(tmp_path, 'e2e', 0.4, 'detection')
    put(tmp_path, 'e2e', -1.0, 'detection', seed=1, metrics={'coco/bbox_mAP': -1.0, 'coco/segm_mAP': -1.0},
        phases=[phase('a', 10), phase('b', 10) | dict(metrics={'coco/bbox_mAP': -1.0})])
    text = board(tmp_path)[0]
    assert row_of(text, 'e2e')[2:5] == ['40.0', '35.0', '2 seeds']
    assert 'seed 1: box AP not measured: -1' in text and 'seed 0: box AP' not in text
    assert 'box AP not measured' in text.partition('b: 1 epochs')[2] and '-100' not in text


def test_newer_run_of_a_seed_replaces_the_older(tmp_path):
    old = put(tmp_path, 'e2e', 50.0)
    put(tmp_path, 'e2e', 55.0, finished_at='2031-01-01T00:00:00+00:00')
    runs, replaced = newest_per_seed(collect(tmp_path)[0])
    assert [run.result['metrics']['accuracy/top1'] for run in runs] == [55.0]
    assert len(replaced) == 1 and replaced[0].startswith(str(old))


def test_weights_name_the_run_that_wrote_them(tmp_path):
    put(tmp_path, 'incub', 70.0, outputs=[dict(path='weights/finetune_last.safetensors', sha256='5' * 64)])
    put(tmp_path, 'incub', 20.0, 'segmentation', weights=dict(path='w', sha256='5' * 64, coverage='all'))
    assert '55555555 (vit_demo_incub)' in board(tmp_path)[0]


@pytest.mark.parametrize('evil', [
    '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '![x](http://x.org/x.png)', '| a | b |',
    'a\nb\n# c', '\x1b[2J', '$\\frac{$', '_hidden', '\ud800', '\u202eabc'])
def test_names_cannot_break_out(tmp_path, evil):
    path = put(tmp_path, 'e2e', 50.0, run='r0', seed=3, hardware=evil, experiment=dict(
        task='classification', model=evil, method=evil, note=evil), phases=[phase(evil, 10, 10.), phase('b', 1, 20.)])
    shutil.copytree(path.parent, tmp_path / 'again')
    text, markdown, page, *_ = board(tmp_path)
    assert '<script' not in page and '<img src=x' not in page and '\x1b' not in text + markdown + page
    assert not re.search(r'(?<!\\)<(script|img)', markdown) and '![x]' not in markdown and '\n# c' not in markdown
    assert '\u202e' not in text + markdown + page
    rows = [line for line in markdown.splitlines() if line.startswith('|')]
    assert len({len(re.findall(r'(?<!\\)\|', row)) for row in rows}) == 1


def test_page_carries_its_pictures_and_fetches_nothing(tmp_path):
    for task in ('detection', 'segmentation'):
        draw(put(tmp_path, 'incub', 0.4, task, pictures=['vis_image/0.png']))
    put(tmp_path, 'e2e', 50.0)
    page = board(tmp_path)[2]
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    sizes = [Image.open(io.BytesIO(base64.b64decode(image))).size for image in images]
    assert sizes.count((20, 10)) == 2 and len(sizes) == 3
    assert 'maskrcnn_incub, seed 0: ground truth | prediction' in page
    assert "default-src 'none'" in page and 'http://' not in page and 'https://' not in page


def test_bad_pictures_are_named_and_left_out(tmp_path):
    secret = tmp_path / 'secret.png'
    draw(secret, 'secret.png')
    path = put(tmp_path / 'runs', 'incub', 0.4, 'detection', pictures=['gone.png', 'text.png', 'link.png', 'good.png'])
    draw(path, 'good.png')
    (path.parent / 'text.png').write_text('root:x:0:0')
    (path.parent / 'link.png').symlink_to(secret)
    (run, ), problems = collect(tmp_path / 'runs')
    assert list(run.pictures) == ['good.png']
    assert len(problems) == 3 and all(str(path) in problem for problem in problems)


def test_curve_adds_up_the_cost(tmp_path):
    put(tmp_path, 'incub', 70.0, phases=[
        phase('meta', 10, 50.0, 4), phase('module_0', 10), phase('assembled', 0, 55.0, seconds=0.0),
        phase('finetune', 5, 70.0)])
    (run, ), _ = collect(tmp_path)
    assert curve(run, 'block_forwards') == [(40, 50.0, 'meta'), (200, 55.0, 'assembled'), (280, 70.0, 'finetune')]
    assert curve(run, 'seconds')[-1][0] == 30.0


def test_plot_only_where_there_is_something_to_plot(tmp_path):
    put(tmp_path, 'e2e', 0.4, 'detection')
    assert plot_costs(collect(tmp_path)[0]) == []
    put(tmp_path, 'e2e', 50.0)
    (png, ) = plot_costs(collect(tmp_path)[0])
    assert Image.open(io.BytesIO(png)).width > 600


def run_tool(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True, cwd='/')


def test_tool_prints_the_table_and_names_broken_files(tmp_path):
    put(tmp_path / 'runs', 'e2e', 50.0)
    done = run_tool(tmp_path / 'runs', '--out', tmp_path / 'out')
    assert (done.returncode, done.stderr) == (0, '') and row_of(done.stdout, 'e2e')[2] == '50.0'
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [
        'leaderboard-0.png', 'leaderboard.html', 'leaderboard.md']
    broken = tmp_path / 'runs' / 'broken' / 'result.json'
    broken.parent.mkdir()
    broken.write_text('{"schema": NaN}')
    done = run_tool(tmp_path / 'runs', '--out', tmp_path / 'out')
    assert done.returncode == 1 and row_of(done.stdout, 'e2e')[2] == '50.0'
    assert len(done.stderr.splitlines()) == 1 and str(broken) in done.stderr


def test_tool_says_that_there_is_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / 'missing'):
        done = run_tool(folder)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(folder) in done.stderr
    assert not list(tmp_path.iterdir())


def test_leaderboard_needs_no_torch_and_no_mm():
    code = ('import sys; from mmincubation.leaderboard import board; '
            'print([m for m in ("torch", "mmengine", "mmcv", "numpy", "matplotlib") if m in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
