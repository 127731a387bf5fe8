"""ADE20K in small: a data set in its folder layout, and the released configs shrunk to it."""
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

SIZES = ((49, 67), (58, 41), (64, 64), (37, 90), (71, 53))  # (height, width)
TINY = dict(dim=16, heads=2, depth=4)


def write_ade(root, train: int = 4, val: int = 5, wrong_label: int | None = None) -> Path:
    """Images of odd sizes (.jpg) and label maps (.png, 0 = nothing, 1..150 = classes) as in ADEChallengeData2016.

    Each picture is striped, its stripes are of few classes, one of them 0 and one 150. `wrong_label` puts that value
    into the first training map.
    """
    root = Path(root)
    for split, count in (('training', train), ('validation', val)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng([count, i])
            height, width = SIZES[i % len(SIZES)]
            labels = np.resize([0, 150, *rng.integers(1, 151, 4)], -(-height // 8))[:, None]
            labels = labels.repeat(8, 0)[:height].repeat(width, 1).astype(np.uint8)
            pixels = (labels[..., None] * [1, 2, 3] + rng.integers(0, 30, (height, width, 3))).astype(np.uint8)
            if wrong_label is not None and (split, i) == ('training', 0):
                labels[0, 0] = wrong_label
            name = f'ADE_{"train" if split == "training" else "val"}_{i + 1:08d}'
            Image.fromarray(pixels).save(root / 'images' / split / f'{name}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / split / f'{name}.png')
    return root


def shrink(cfg: Config, root, side: int = 64) -> Config:
    """A released config made small enough for a CPU: everything else stays what it is.

    The ViT has 4 blocks of width 16, every pixel size is `side` instead of 512 (so crop, stride and test scales keep
    their ratios), heads are 32 wide, SyncBN is BN, loaders have no workers, the weights are random.
    """
    ratio = side / 512
    cfg = Config(_scaled(cfg.to_dict(), ratio))
    arch, cfg.model.backbone.init_cfg = cfg.model.backbone.arch, None
    arch = ConfigDict(name=arch) if isinstance(arch, str) else arch
    cfg.model.backbone.update(arch=dict(arch, **TINY), out_indices=(0, 1, 2, 3))
    cfg.model.neck.embed_dim = cfg.model.auxiliary_head.in_channels = TINY['dim']
    cfg.model.decode_head.update(in_channels=[TINY['dim']] * 4, channels=32)
    cfg.model.auxiliary_head.channels = 32
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        cfg.model[part].norm_cfg = dict(type='BN')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(root)
    return cfg


def _scaled(node, ratio: float):
    """All pixel sizes in a config (pairs under these keys) times `ratio`."""
    if isinstance(node, dict):
        return {key: tuple(int(n * ratio) for n in value) if key in ('scale', 'crop_size', 'size', 'stride')
                and isinstance(value, list | tuple) else _scaled(value, ratio) for key, value in node.items()}
    return [_scaled(value, ratio) for value in node] if isinstance(node, list) else node
