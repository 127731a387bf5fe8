"""Batches that mixup cannot pair: check and run refuse the same ones, before the first step."""
from argparse import Namespace

import pytest

from mmincubation.check.run import check
from mmincubation.engine.launch import train
from tests.helpers.toy import arguments, e2e_config

MIXUP = dict(type='timm.data.Mixup', mixup_alpha=.8, num_classes=3)


def config(images, folder, **loader):
    """Of 24 images; validation is left out, because it shares them."""
    cfg = e2e_config(images, folder, epochs=1)
    cfg.model.data_preprocessor = dict(type='mmincubation.ClsDataPreprocessor', mixup=MIXUP)
    cfg.train_dataloader.dataset.fraction = loader.pop('fraction', 1.)
    cfg.train_dataloader.update(loader)
    for key in [key for key in cfg if key.startswith(('val_', 'test_'))]:
        cfg.pop(key)
    cfg.train_cfg.pop('val_interval')
    cfg.custom_hooks.pop()  # writes the best weights of a validation
    return cfg


@pytest.mark.parametrize('loader, ranks, odd', [
    (dict(batch_size=10), 1, None), (dict(batch_size=6, fraction=.875), 1, 3),
    (dict(batch_size=6, fraction=.875, drop_last=True), 1, None), (dict(batch_size=5), 1, 5),
    (dict(batch_size=5, drop_last=True), 1, 5), (dict(batch_size=25), 1, None), (dict(batch_size=8), 2, None),
    (dict(batch_size=10, fraction=.875), 2, 1),
    (dict(batch_size=6, fraction=.875, sampler=dict(type='InfiniteSampler')), 1, None)])
def test_check_and_run_refuse_the_same(loader, ranks, odd, images, tmp_path, capsys):
    cfg = config(images, tmp_path / 'work', **loader)
    args = Namespace(gpus=ranks, img_per_s=None, full=False, work_dir=str(tmp_path / 'work'))
    said = [str(problem) for problem in check(cfg, 'toy.py', args).problems]
    found = [line.partition(' leave one of ')[2] for line in said if 'mixup' in line]
    assert found == ([f'{odd}, which are odd: give an even batch_size and drop_last=True'] if odd else [])
    if ranks > 1 or 'sampler' in loader:  # a loop over epochs would not end
        return
    cfg = config(images, tmp_path / 'work', **loader)
    cfg.dump(tmp_path / 'run.py')
    assert train(arguments(tmp_path / 'run.py')) == (2 if odd else 0)
    assert capsys.readouterr().err == ''.join(f'error: {line}\n' for line in said)
