"""Losses of known runs, kept as text: a change of structure leaves every one of them as it is.

`python -m tests.test_golden` writes the text anew, after a change that means to move them.
"""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from tests.helpers.toy import incubation_config, write_images
from tests.resumable.test_exact_resume import drawing

TEXT = Path(__file__).parent / 'golden' / 'losses.txt'
TOLERANCE = 1e-4  # relative, between CPUs: they add up in different orders
ARCH = dict(embed_dim=16, depth=4, num_heads=2, patch_size=16, img_size=64, num_classes=3)
RUNS = {'sequential': {}, 'joint': dict(mode='joint', start='grow'),
        'paper_code': dict(recipe='paper_code', start='ends')}
# Adam makes whole steps of gradients that are zero but for rounding: more so without the clipping that the code lacks.
OPTIMIZERS = {'paper_code': dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.05)}


class Record(Hook):
    """Notes the losses of every step by phase."""

    def __init__(self):
        self.losses: dict[str, list[float]] = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for name, value in outputs.items():
            phase = runner.train_loop.phase_name
            key = f'{phase} {name}' if '.' in name else phase
            self.losses.setdefault(key, []).append(torch.as_tensor(value).detach().item())


def incubation(folder: Path, name: str, changes: dict) -> dict[str, list[float]]:
    """20 steps of each phase, with stochastic depth, mixup, erasing and augmentation."""
    cfg = incubation_config(folder / 'images', folder / name, (5, 5, 5), drop_path_rate=.3)
    drawing(cfg, workers=0)
    cfg.train_dataloader.update(batch_size=6, drop_last=True)
    cfg.optim_wrapper.optimizer = OPTIMIZERS.get(name, dict(type='AdamW', lr=1e-3, eps=1e-4, weight_decay=0.05))
    cfg.train_cfg.update(changes)
    cfg.experiment_name = str(folder / name)
    allow_mm_checkpoints()
    runner, record = Runner.from_cfg(cfg), Record()
    runner.register_hook(record)
    runner.train()
    return {f'{name}: {phase}': losses for phase, losses in record.losses.items()}


def released(package, name: str) -> Config:
    return Config.fromfile(Path(package.__file__).parent / '.mim' / 'configs' / '_base_' / 'models' / name).model


def two_steps(model, images, samples) -> list[float]:
    """All losses of a step, and of the next one."""
    optimizer, found = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(2):
        total, values = model.parse_losses(model(images, samples, mode='loss'))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found += [float(values[key].detach()) for key in sorted(values) if 'loss' in key]
    return found


def detection() -> list[float]:
    import mmdet
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    cfg = released(mmdet, 'mask-rcnn_r50_fpn.py')
    cfg.backbone = dict(type='mmincubation.ViTBackbone', arch=ARCH, out_indices=(3, ), window_size=3,
                        global_blocks=(1, 3), drop_path_rate=.2)
    cfg.neck = dict(type='mmincubation.SimpleFeaturePyramid', in_channels=16, out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = cfg.roi_head.mask_roi_extractor.out_channels = 16
    cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=3)
    cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3)
    torch.manual_seed(0)
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg).train()
        masks = np.zeros((2, 96, 128), np.uint8)
        masks[0, 5:50, 5:60] = masks[1, 40:90, 50:120] = 1
        sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), pad_shape=(96, 128),
                                             batch_input_shape=(96, 128), scale_factor=(1., 1.)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5., 5, 60, 50], [50, 40, 120, 90]]), labels=torch.tensor([0, 2]),
            masks=BitmapMasks(masks, 96, 128))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        return two_steps(model, torch.randn(1, 3, 96, 128), [sample])


def segmentation() -> list[float]:
    import mmseg
    from mmseg.structures import SegDataSample
    cfg, norm = released(mmseg, 'upernet_r50.py'), dict(type='BN')
    cfg.pretrained = None
    cfg.backbone = dict(type='mmincubation.ViTBackbone', arch=ARCH, out_indices=(0, 1, 2, 3), cls_token=True,
                        tap_norm=True, drop_path_rate=.2)
    cfg.neck = dict(type='Feature2Pyramid', embed_dim=16, rescales=[4, 2, 1, .5], norm_cfg=norm)
    cfg.decode_head.update(in_channels=[16] * 4, channels=16, num_classes=5, norm_cfg=norm)
    cfg.auxiliary_head.update(in_channels=16, channels=16, num_classes=5, norm_cfg=norm)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg).train()
        samples = []
        for i in range(2):
            sample = SegDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96), pad_shape=(64, 96)))
            sample.gt_sem_seg = PixelData(data=(torch.arange(64 * 96).reshape(1, 64, 96) // 700 + i) % 5)
            samples.append(sample)
        return two_steps(model, torch.randn(2, 3, 64, 96), samples)


def losses(folder: Path) -> dict[str, list[float]]:
    """All runs, on one thread in float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        write_images(folder / 'images')
        found = {'detection': detection(), 'segmentation': segmentation()}
        for name, changes in RUNS.items():
            found |= incubation(folder, name, changes)
        return found
    finally:
        torch.set_num_threads(threads)


def read() -> dict[str, list[float]]:
    """The text: a line for each run and phase, its name, then the losses in order."""
    lines = (line.split(' | ') for line in TEXT.read_text().splitlines() if not line.startswith('#'))
    return {name.strip(): [float(number) for number in numbers.split()] for name, numbers in lines}


def write(found: dict[str, list[float]]) -> None:
    head = f'# float32, one thread; compared to {TOLERANCE:g} relative. Written by `python -m tests.test_golden`.\n'
    rows = [f'{name} | {" ".join(map(repr, values))}\n' for name, values in found.items()]
    TEXT.write_text(head + ''.join(rows))


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    return losses(tmp_path_factory.mktemp('golden'))


def test_losses_are_the_golden_ones(found):
    golden = read()
    assert found.keys() == golden.keys()
    for name, values in found.items():
        assert values == pytest.approx(golden[name], rel=TOLERANCE), name


def test_each_phase_has_twenty_steps(found):
    names = [name for name in found if ':' in name]
    assert len(names) == 4 * len(RUNS) and {len(found[name]) for name in names} == {20}


def test_two_runs_on_one_machine_are_equal(found, tmp_path):
    assert losses(tmp_path) == found


if __name__ == '__main__':
    from tempfile import TemporaryDirectory
    with TemporaryDirectory() as folder:
        write(losses(Path(folder)))
