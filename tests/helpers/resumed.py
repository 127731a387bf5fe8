"""What a killed and resumed run must have in common with one that was not: everything but times."""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from tests.helpers.forked import trained

TIMES = ('time', 'data_time', 'memory')


def logged(work_dir: Path) -> dict:
    """(train or val, step) -> the different lines of numbers that the starts of a run have logged for it."""
    lines = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for text in file.read_text().splitlines(keepends=True):
            if text.endswith('\n') or text.endswith('}'):  # else a kill has cut it
                line = json.loads(text)
                kind = 'train' if 'iter' in line else 'val'
                numbers = tuple(sorted((k, v) for k, v in line.items() if k not in TIMES))
                lines.setdefault((kind, line['step']), set()).add(numbers)
    return lines


def flat(node, place: str = '') -> dict:
    """Tensors and numbers of nested containers by their path."""
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for key, value in items for k, v in flat(value, f'{place}/{key}').items()}
    return {place: node}


def newest(work_dir: Path) -> dict:
    """Weights, average, optimiser and schedules of a run's last checkpoint, and where it is."""
    allow_mm_checkpoints()
    path = Path((work_dir / 'last_checkpoint').read_text())
    checkpoint = torch.load(work_dir / path.name, weights_only=True)
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'position', 'gradients')
    found = {key: checkpoint.get(key) for key in keys}
    return flat(found | {key: checkpoint['meta'][key] for key in ('epoch', 'iter')})


def equal(a, b) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_run(resumed: Path, whole: Path) -> None:
    """Bit for bit: last checkpoint, written weights, every logged number of every start, counts and metrics."""
    ours, theirs = newest(resumed), newest(whole)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not equal(ours[key], theirs[key])] == []
    for file in sorted((whole / 'weights').glob('*.safetensors')):
        ours, theirs = load_file(resumed / 'weights' / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == [], file.name
    ours, theirs = logged(resumed), logged(whole)
    assert theirs and ours == theirs
    ours, theirs = (json.loads((folder / 'result.json').read_text()) for folder in (resumed, whole))
    for result in (ours, theirs):
        for cost in (cost for phase in result['phases'] for cost in (phase, *phase['curve'])):
            cost.pop('seconds')
            cost.pop('data_seconds', None)
    assert ours['phases'] == theirs['phases'] and ours['metrics'] == theirs['metrics']


def killed_and_resumed(config: Path, work_dir: Path, kills: list[dict], count: int = 1) -> None:
    """Start, be killed in each of the ways (see `forked.trained`), and at last run to the end."""
    for kill in kills:
        assert not trained(config, work_dir, count, **kill) or 'kill_after' in kill
    assert trained(config, work_dir, count)
