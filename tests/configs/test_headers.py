"""Batch, learning rate and length that the header of each leaf states are those of its config."""
import re
from pathlib import Path

import pytest

from tests.configs.test_configs import EVERY, header, load, phases_of
from tests.helpers.paths import ROOT

BATCH = re.compile(r'^Batch: +(?P<batch>\d+) = (?P<devices>\d+) (?P<kind>GPU|GPUs|CPU) x (?P<images>\d+); '
                   r'(?P<optimizer>\w+), lr (?P<lr>[\d.e-]+); (?P<length>.+)$', re.MULTILINE)
COMMAND = re.compile(r'^ +(?:NNODES=(\d+) \S+ )?tools/dist_train\.sh (\S+) (\d+)$', re.MULTILINE)


def length_of(cfg) -> str:
    """The length of a training, as headers write it."""
    loop = cfg.train_cfg
    if 'phases' in loop:
        meta, module, finetune = phases_of(cfg)
        return f'epochs: meta {meta}, module {cfg.model.modules} x {module}, finetune {finetune}'
    return f'{loop.max_epochs} epochs' if 'max_epochs' in loop else f'{loop.max_iters:,} iterations'


def batch_problems(text: str, path: Path, cfg) -> list[str]:
    """What the header's line `Batch:` says otherwise than the config and the header's command do."""
    line, commands = BATCH.search(text), COMMAND.findall(text)
    if not line:
        return ['no line: Batch: 16 = 8 GPUs x 2; AdamW, lr 1e-4; 12 epochs']
    devices = 1
    for nodes, file, each in commands:
        devices = int(nodes or 1) * int(each)
        if file != path.relative_to(ROOT).as_posix():
            return [f'the command trains {file}']
    images, optimizer = cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer
    batch = images * devices * cfg.optim_wrapper.get('accumulative_counts', 1)
    kind = 'CPU' if path.parent.name == 'demo' else 'GPU' if devices == 1 else 'GPUs'
    right = dict(batch=batch, devices=devices, kind=kind, images=images, optimizer=optimizer.type, lr=optimizer.lr,
                 length=length_of(cfg))
    said = line.groupdict() | dict(lr=float(line['lr']))
    return [f'{key}: {said[key]}, and the config has {value}' for key, value in right.items()
            if str(said[key]) != str(value)]


@EVERY
def test_batch_rate_and_length_of_the_header_are_the_configs(path):
    cfg = load(path)
    assert batch_problems(header(path), path, cfg) == []
    assert cfg.auto_scale_lr.base_batch_size == int(BATCH.search(header(path))['batch'])


@pytest.mark.parametrize('stem, key, wrong', [
    ('imagenet/vit_b_incub', 'batch', dict(train_dataloader=dict(batch_size=128))),
    ('imagenet/vit_b_incub', 'batch', dict(optim_wrapper=dict(accumulative_counts=2))),
    ('imagenet/vit_b_incub', 'lr', dict(optim_wrapper=dict(optimizer=dict(lr=1e-3)))),
    ('imagenet/vit_b_incub', 'length', dict(train_cfg=dict(phases=dict(meta=dict(epochs=299))))),
    ('imagenet/vit_b_incub', 'length', dict(train_cfg=dict(phases=dict(module=dict(epochs=50))))),
    ('imagenet/vit_b_incub', 'length', dict(train_cfg=dict(phases=dict(finetune=dict(epochs=50))))),
    ('coco/maskrcnn_vit_b_incub', 'length', dict(train_cfg=dict(max_epochs=36))),
    ('ade20k/upernet_vit_b_incub', 'length', dict(train_cfg=dict(max_iters=160_000)))])
def test_a_header_that_says_otherwise_is_found(stem, key, wrong):
    path = ROOT / f'configs/{stem}.py'
    cfg = load(path)
    cfg.merge_from_dict(wrong)
    assert any(problem.startswith(f'{key}: ') for problem in batch_problems(header(path), path, cfg))


def test_fewer_gpus_in_the_command_are_found():
    path = ROOT / 'configs/imagenet/vit_h_incub.py'
    text = header(path).replace('NNODES=4', 'NNODES=2')
    assert [p.partition(':')[0] for p in batch_problems(text, path, load(path))] == ['batch', 'devices']
