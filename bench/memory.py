"""The estimate of a step's memory beside the real peak of the CPU allocator: `python bench/memory.py`."""
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.benchmark.memory import allocated
from mmincubation.check import batches, memory
from mmincubation.config.load import load_config
from mmincubation.vit.transformer import attention_as_on_gpus

CLS, DET, SEG = (f'configs/demo/{name}_e2e.py' for name in ('vit_demo', 'maskrcnn_vit_demo', 'upernet_vit_demo'))
SMALL = dict(embed_dim=384, depth=8, num_heads=6, patch_size=16, img_size=224)
LEAN = {'model.backbone.bf16': True, 'model.backbone.with_cp': True, 'model.neck.bf16': True}
BF16 = {'optim_wrapper.type': 'mmincubation.AutocastOptimWrapper'}


def dense(width: int, depth: int, batch: int, side: int, **more) -> dict:
    """Options that change size, batch and images of a detector or segmentor of the demo."""
    taps = [depth // 4 * (i + 1) - 1 for i in range(4)]
    options = {
        'model.backbone.arch': dict(embed_dim=width, depth=depth, num_heads=width // 32, patch_size=8, img_size=32),
        'train_dataloader.batch_size': batch, 'train_dataloader.dataset.pipeline.2.scale': (side, side), **more}
    return taps, options


def detector(width: int, depth: int, batch: int, side: int, **more) -> Config:
    """The demo's Mask R-CNN in another size."""
    taps, options = dense(width, depth, batch, side, **more)
    return load_config(DET, options | {
        'model.backbone.out_indices': taps[-1:], 'model.backbone.global_blocks': taps,
        'model.neck.in_channels': width})


def segmentor(width: int, depth: int, batch: int, side: int, **more) -> Config:
    """The demo's UperNet in another size."""
    taps, options = dense(width, depth, batch, side, **more)
    return load_config(SEG, options | {
        'model.backbone.out_indices': taps, 'model.data_preprocessor.size': (side, side),
        'model.neck.embed_dim': width, 'model.decode_head.in_channels': [width] * 4,
        'model.auxiliary_head.in_channels': width})


def classifier(arch: dict, batch: int, **more) -> Config:
    """The demo's E2E control in another size."""
    cfg = load_config(CLS, {'train_dataloader.batch_size': batch, **more})
    cfg.model.arch = arch
    return cfg


def real_batch(scope: str, size: tuple[int, int], count: int) -> dict:
    """A batch as `make_batch` makes it, with random images and plausible labels in memory."""
    rng = np.random.default_rng(0)
    batch = batches.make_batch(scope, size, count)
    batch['inputs'].normal_(generator=torch.Generator().manual_seed(0))
    for sample in batch.get('data_samples', ()) if scope == 'mmdet' else ():
        corner = rng.uniform(0, .6, (batches.BOXES, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(.1, .4, corner.shape)], 1) * [*size[::-1], *size[::-1]]
        sample.gt_instances.bboxes = torch.tensor(boxes, dtype=torch.float32)
    return batch


@attention_as_on_gpus()
def measured(cfg: Config) -> int:
    """Bytes at the peak of a real training step: what is always there, and the allocator's own account of the step."""
    torch.manual_seed(0)
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    wrapper = memory.make_wrapper(cfg.optim_wrapper, model)
    size = batches.input_size(cfg.model, cfg.train_dataloader)
    for _ in range(2):  # the first makes the optimiser's state
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
            data = real_batch(cfg.default_scope, size, cfg.train_dataloader.batch_size)
            with wrapper.optim_context(model):
                loss = memory.total_loss(model, data)
            loss.backward()
            wrapper.step()
            del loss, data
        wrapper.zero_grad()
    state = [v for s in wrapper.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    always = [*model.parameters(), *model.buffers(), *state]
    return sum(t.numel() * t.element_size() for t in always) + allocated(prof)


def cases() -> dict[str, Config]:
    """The rows of the table in docs/guides/check.md."""
    return {
        'ViT 384x8, 224, batch 8': classifier(SMALL, 8),
        'ViT 384x8, 224, batch 8, bf16': classifier(SMALL, 8, **BF16),
        'ViT-B, 224, batch 4': classifier(dict(name='vit_base'), 4),
        'ViT 64x24, 32, batch 64': load_config(CLS),
        'Mask R-CNN 64x24, 96x96, batch 8': load_config(DET),
        'Mask R-CNN 128x8, 256x256, batch 4': detector(128, 8, 4, 256),
        'Mask R-CNN 256x8, 384x384, batch 2': detector(256, 8, 2, 384),
        'Mask R-CNN 256x8, 640x640, batch 1, bf16': detector(256, 8, 1, 640, **BF16),
        'Mask R-CNN 256x8, 384x384, batch 2, checkpointing': detector(256, 8, 2, 384, **LEAN),
        'UperNet 64x24, 96x96, batch 8': load_config(SEG),
        'UperNet 128x8, 256x256, batch 4': segmentor(128, 8, 4, 256),
        'UperNet 256x8, 384x384, batch 2': segmentor(256, 8, 2, 384),
    }


def row(name: str, cfg: Config) -> str:
    """One line of the table."""
    estimate, real = memory.estimate(cfg)[0].peak, measured(cfg)
    return f'| {name} | {estimate / 2**20:,.0f} | {real / 2**20:,.0f} | {100 * (estimate / real - 1):+.1f} % |'


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    print('| case | estimate MiB | measured MiB | error |\n|---|---|---|---|')
    for name, cfg in cases().items():
        if not sys.argv[1:] or sys.argv[1] in name:
            print(row(name, cfg), flush=True)
