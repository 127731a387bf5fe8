"""Is there a depth gap? ViTs of 4 and 24 blocks, side by side: python bench/gpu_depth.py DATA OUT.jsonl [--dry].

DATA holds `train` and `val`, Arrow folders of 32 x 32 images (columns `image` and `label`). Width 192, patch 4, mixup,
cutmix, erasing, crop and flip; the images lie on the device, so that no worker is the limit. Each depth trains in a
process of its own for `--seconds`: the learning rate follows the clock, so both end at its end. The deeper one sees
fewer images: each row says how many.
"""
import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DEPTHS, WIDTH, BATCH, LR, VALIDATIONS = (4, 24), 192, 512, 1e-3, 20


def load(folder: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return all images (N, 3, 32, 32) uint8 and labels (N,)."""
    from datasets import load_from_disk
    rows = load_from_disk(folder)
    images = np.stack([np.asarray(image.convert('RGB')) for image in rows['image']]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()).to(device), torch.tensor(rows['label'], device=device)


def build_classifier(depth: int, classes: int, dry: bool):
    """Return the classifier with the preprocessor of the CIFAR-100 configs, and its optimiser wrapper."""
    from mmengine.registry import MODELS, init_default_scope

    from mmincubation.check.memory import make_wrapper
    from mmincubation.config.load import load_config
    cfg = load_config('configs/cifar100/deit_t_32_e2e.py')
    init_default_scope('mmengine')
    width = 24 if dry else WIDTH
    cfg.model.arch = dict(
        embed_dim=width, depth=depth, num_heads=3, patch_size=4, img_size=32, num_classes=classes)
    cfg.model.drop_path_rate = 0.1 if depth > 12 else 0.
    cfg.model.data_preprocessor.update(crop=4, flip=.5)
    cfg.model.data_preprocessor.mixup.num_classes = classes
    cfg.optim_wrapper.optimizer.lr = LR
    model = MODELS.build(cfg.model)
    return model, make_wrapper(cfg.optim_wrapper, model)


@torch.no_grad()
def accuracy(model, images: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    model.eval()
    right = 0
    with torch.compiler.set_stance('force_eager'), torch.autocast(images.device.type, torch.bfloat16):
        for batch, truth in zip(images.split(1000), labels.split(1000), strict=True):
            data = model.data_preprocessor(dict(inputs=batch, labels=truth), training=False)
            right += int((model(data['inputs'], mode='tensor').argmax(1) == truth).sum())
    model.train()
    return 100 * right / len(images)


def train(depth: int, data: Path, out: Path, seconds: float, dry: bool) -> None:
    """Train one depth for `seconds`, after two steps of warm-up; append a row for each validation."""
    from mmincubation.engine.compiling import compile_blocks
    device = torch.device('cpu' if dry else 'cuda')
    torch.manual_seed(0)
    (images, labels), (val_images, val_labels) = (load(data / name, device) for name in ('train', 'val'))
    model, wrapper = build_classifier(depth, int(labels.max()) + 1, dry)
    model = model.to(device).train()
    compile_blocks(model, not dry)
    batch_size, steps, validations, start = 32 if dry else BATCH, 0, 0, None
    while True:
        if steps == 2:  # compiled
            start = time.monotonic()
        share = (time.monotonic() - start) / seconds if start else 0
        if share >= validations / VALIDATIONS and start:
            row = dict(depth=depth, images=steps * batch_size, seconds=time.monotonic() - start,
                       top1=accuracy(model, val_images, val_labels))
            with open(out, 'a') as file:
                file.write(json.dumps(row) + '\n')
            print(row, flush=True)
            validations += 1
        if share >= 1:
            return
        for group in wrapper.optimizer.param_groups:
            group['lr'] = LR * min(1, share / .05) * (.01 + .99 * (1 + math.cos(math.pi * share)) / 2)
        chosen = torch.randint(len(images), (batch_size, ), device=device)
        model.train_step(dict(inputs=images[chosen], labels=labels[chosen]), wrapper)
        steps += 1


def main() -> None:
    """Train all depths at once, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--seconds', type=float, default=170)
    parser.add_argument('--depth', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    if args.depth:
        return train(args.depth, args.data, args.out, args.seconds, args.dry)
    runs = [subprocess.Popen([sys.executable, *sys.argv, '--depth', str(depth)]) for depth in DEPTHS]
    sys.exit(max(run.wait() for run in runs))


if __name__ == '__main__':
    main()
