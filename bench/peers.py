"""Our backbone and training steps beside those of other packages: processor time of one thread, in turns.

python bench/peers.py backbone [--side 512]    ViT-B in windows, bfloat16: transformers' VitDetBackbone
python bench/peers.py upernet  [--side 512]    UperNet ViT-B: the step of mmseg's own config for it (MLN, float32)
python bench/peers.py maskrcnn [--side 512]    Mask R-CNN ViT-B: mmdet's ResNet-50

A row is the other's time by ours: above 1, ours is faster. Our steps also run all in float32 and all in bfloat16
(`--amp`). The steps see the same synthetic images. transformers is an extra that only `backbone` asks for:
`pip install -e .[peers]`.
"""
import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.downstream import data, make_step, precisions, small, with_resnet
from mmincubation.downstream import ViTBackbone

GLOBAL = (2, 5, 8, 11)
MLN = 'vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py'


def in_turns(calls: dict[str, Callable], turns: int) -> str:
    """Return a line for each call after the first: its time by that of the first, the median of the turns."""
    taken = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name in list(calls) if turn % 2 else reversed(calls):
            start = time.process_time()
            calls[name]()
            if turn:  # the first is a warm-up
                taken[name].append(time.process_time() - start)
    ours, *others = calls
    lines = [f'{ours}: {median(taken[ours]):.2f} s']
    for other in others:
        found = sorted(b / a for a, b in zip(taken[ours], taken[other], strict=True))
        lines.append(f'{other}: {median(found):.2f} times as long ({found[0]:.2f} to {found[-1]:.2f})')
    return '\n'.join(lines)


def forward_backward(model: nn.Module, images: Tensor, autocast: bool) -> None:
    """Run a backbone in training, its last map to a sum and back."""
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        found = model(images)
    (found[-1] if isinstance(found, tuple) else found.feature_maps[-1]).float().sum().backward()
    model.zero_grad(set_to_none=True)


def vitdet(side: int) -> nn.Module | None:
    """Return transformers' ViT-B in windows of 14 without relative positions, as ours; None if it is not installed."""
    try:
        from transformers import VitDetBackbone, VitDetConfig
    except ImportError as error:
        print(f'transformers is left out: {error}; pip install -e .[peers]')
        return None
    return VitDetBackbone(VitDetConfig(
        image_size=side, pretrain_image_size=224, window_size=14,
        window_block_indices=[i for i in range(12) if i not in GLOBAL]))


def backbones(side: int, batch: int) -> dict[str, Callable]:
    """Return forward and backward of ours and of transformers', in bfloat16."""
    images = torch.randn(batch, 3, side, side)
    ours = ViTBackbone('vit_base', out_indices=(11, ), window_size=14, global_blocks=GLOBAL, bf16=True)
    calls = {'ViTBackbone': partial(forward_backward, ours.train(), images, False)}
    if theirs := vitdet(side):
        calls['VitDetBackbone'] = partial(forward_backward, theirs.train(), images, True)
    return calls


def upernet(cfg: Config, batch: int) -> dict[str, Callable]:
    """Return our step in three precisions, and that of mmseg's config."""
    import mmseg
    theirs, released = deepcopy(cfg), Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / MLN)
    theirs.model, theirs.optim_wrapper = released.model, released.optim_wrapper
    theirs.model.pop('pretrained')
    theirs.model.data_preprocessor.size = cfg.model.data_preprocessor.size
    return {**precisions(make_step(cfg, batch)), "mmseg's MLN": make_step(theirs, batch)}


def maskrcnn(cfg: Config, batch: int) -> dict[str, Callable]:
    """Return our step in three precisions, and mmdet's ResNet-50."""
    return {**precisions(make_step(cfg, batch)), 'ResNet-50': make_step(with_resnet(cfg), batch)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['backbone', 'upernet', 'maskrcnn'])
    parser.add_argument('--side', type=int, default=512)
    parser.add_argument('--batch', type=int, help='images; default: 2 for upernet, else 1')
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = args.batch or (2 if args.what == 'upernet' else 1)
    print(f'{args.what}: {batch} x {args.side} x {args.side}, torch {torch.__version__}', flush=True)
    if args.what == 'backbone':
        print(in_turns(backbones(args.side, batch), args.turns))
        return
    task, make = dict(upernet=('seg', upernet), maskrcnn=('det', maskrcnn))[args.what]
    with tempfile.TemporaryDirectory() as folder:
        data(task, Path(folder))
        print(in_turns(make(small(task, args.side, Path(folder)), batch), args.turns))


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    main()
