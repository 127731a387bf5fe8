"""Detection and segmentation steps, part by part, beside the same heads on a ResNet-50: time and memory.

python bench/downstream.py parts det|seg [--side 512] [--batch 2] [--runs 5]
python bench/downstream.py bf16 det|seg ...     the config as it is (bfloat16) against all float32
python bench/downstream.py reads det|seg ...    where the host reads from the device

On synthetic images in COCO's and ADE20K's formats, through the config's own pipeline, resized to `side`.
"""
import argparse
import logging
import sys
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.benchmark import host_syncs, parts
from mmincubation.check.memory import make_wrapper
from mmincubation.config.load import load_config
from mmincubation.engine.optim import AutocastOptimWrapper
from mmincubation.resumable.draws import seed_process
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco

CONFIGS = dict(det='configs/coco/maskrcnn_vit_b_incub.py', seg='configs/ade20k/upernet_vit_b_incub.py')


def small(task: str, side: int, root: Path) -> Config:
    """The ViT-B config of the task on images of `side` pixels."""
    cfg = load_config(CONFIGS[task])
    cfg.model.backbone.pop('init_cfg')
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = dataset.data_root.replace('data', str(root), 1)
    for step in dataset.pipeline:
        for key in {'scale', 'crop_size'} & set(step):
            step[key] = (side, side)
        step.pop('cat_max_ratio', None)
    if task == 'seg':
        cfg.model.data_preprocessor.size = (side, side)
    return cfg


def with_resnet(cfg: Config) -> Config:
    """The same model on a ResNet-50, with the neck that mmdet has for it; random weights."""
    import mmdet
    import mmseg
    package, name = (mmdet, 'mask-rcnn_r50_fpn.py') if cfg.default_scope == 'mmdet' else (mmseg, 'upernet_r50.py')
    released = Config.fromfile(Path(package.__file__).parent / '.mim/configs/_base_/models' / name).model
    cfg = deepcopy(cfg)
    cfg.model.backbone = released.backbone
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.neck = released.get('neck')
    if cfg.default_scope == 'mmseg':
        cfg.model.decode_head.in_channels = released.decode_head.in_channels
        cfg.model.auxiliary_head.in_channels = released.auxiliary_head.in_channels
    cfg.optim_wrapper.paramwise_cfg = ConfigDict()  # no ViT, no layers
    return cfg


@dataclass
class InPrecision(parts.Step):
    """A step with backbone and pyramid in bfloat16 or not."""
    bf16: bool

    def __call__(self) -> None:
        for part in (self.model.backbone, self.model.neck):
            if hasattr(part, 'bf16'):
                part.bf16 = self.bf16
        super().__call__()


def precisions(step: parts.Step) -> dict[str, parts.Step]:
    """One model, one optimiser, three precisions; the config's own comes first."""
    plain, autocast = (wrapper(step.wrapper.optimizer) for wrapper in (OptimWrapper, AutocastOptimWrapper))
    found = {'backbone bfloat16': InPrecision(step.model, plain, step.batch, True),
             'all bfloat16': InPrecision(step.model, autocast, step.batch, True),
             'all float32': InPrecision(step.model, plain, step.batch, False)}
    own = 'all bfloat16' if isinstance(step.wrapper, AutocastOptimWrapper) else 'backbone bfloat16'
    return {own: found.pop(own), **found}


def make_step(cfg: Config, count: int) -> parts.Step:
    """One training step of the config; every step sees the same images and draws the same."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    seed_process(0)
    samples = [dataset[i] for i in range(count)]
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train().to('cuda' if torch.cuda.is_available() else 'cpu')

    def batch() -> dict:
        seed_process(0)
        return deepcopy(pseudo_collate(samples))

    return parts.Step(model, make_wrapper(cfg.optim_wrapper, model), batch)


def data(task: str, root: Path) -> None:
    if task == 'det':
        write_coco(root / 'coco', size=(400, 641), per_image=7, crowds=0)
    else:
        write_ade(root / 'ade/ADEChallengeData2016')


def ratios(found: dict) -> str:
    """How many times as long as the first each of the others takes."""
    first, *others = found
    return '; '.join(f'{name}: {found[name]["step"]["seconds"] / found[first]["step"]["seconds"]:.2f} times the time, '
                     f'{found[name]["step"]["peak"] / found[first]["step"]["peak"]:.2f} times the peak of {first}'
                     for name in others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['parts', 'bf16', 'reads'])
    parser.add_argument('task', choices=list(CONFIGS))
    parser.add_argument('--side', type=int, default=512)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--runs', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data(args.task, Path(folder))
        cfg = small(args.task, args.side, Path(folder))
        step = make_step(cfg, args.batch)
        if args.what == 'reads':
            print(host_syncs.table(host_syncs.host_syncs(step)))
        else:
            steps = precisions(step) if args.what == 'bf16' else \
                {'ViT-B': step, 'ResNet-50': make_step(with_resnet(cfg), args.batch)}
            found = parts.measure(steps, args.runs)
            print(f'{torch.get_num_threads()} threads, {args.batch} x {args.side} x {args.side}, torch '
                  f'{torch.__version__}\n\n{parts.table(found)}\n\n{ratios(found)}')


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    main()
