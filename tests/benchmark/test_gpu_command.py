"""bench/gpu.sh on the CPU: every stage runs the code that it would run on a GPU, and a failing one stops no other."""
import json
import os
import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from tests.helpers.paths import ROOT
from tests.helpers.shrink import picture


def run(out, *arguments, **env) -> list[str]:
    """The lines of its summary."""
    subprocess.run([str(ROOT / 'bench/gpu.sh'), '--dry', *arguments], cwd=ROOT, capture_output=True, timeout=900,
                   env=dict(os.environ, PYTHON=sys.executable, OUT=str(out), OMP_NUM_THREADS='1', **env))
    return (out / 'stages.txt').read_text().splitlines()


def rows(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_photographs(folder) -> None:
    features = Features(image=Image(), label=ClassLabel(names=['a', 'b']))
    for name in ('train', 'val'):
        Dataset.from_dict(dict(image=[picture(i, 32) for i in range(64)], label=[0, 1] * 32), features).save_to_disk(
            folder / name)


@pytest.mark.faults
def test_the_whole_command(tmp_path):
    write_photographs(tmp_path / 'photographs')
    stages = run(tmp_path, 'smoke', 'steps', 'data', 'depth', DATA=str(tmp_path / 'photographs'), SECONDS_STEPS='300',
                 SECONDS_DEPTH='10')
    assert [line.split(' seconds')[0] for line in stages] == [
        f'{name} rc=0' for name in ('smoke', 'steps', 'data', 'depth')], stages
    done = {(row['task'], row['act']): row.get('rc', 0) for row in rows(tmp_path / 'smoke.jsonl')}
    assert {('cls', 'compare'), ('det', 'compare'), ('seg', 'compare'), ('cls_compiled', 'train')} <= done.keys()
    assert not any(done.values())
    measured = rows(tmp_path / 'steps.jsonl')
    assert not [row for row in measured if 'error' in row] and len(measured) > 40
    assert {row['depth'] for row in rows(tmp_path / 'depth.jsonl')} == {4, 24}


@pytest.mark.faults
def test_a_stage_that_fails_stops_no_other(tmp_path):
    stages = run(tmp_path, 'depth', 'data', DATA=str(tmp_path / 'nothing'))
    assert stages[0].startswith('depth rc=1') and stages[1].startswith('data rc=0')
