"""Any config of the repository in small: one function instead of a second config."""
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from PIL import Image

from mmincubation.checkpoints import write_tensors
from mmincubation.models import Arch, VisionTransformer
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco

DIM, DEPTH, BATCH = 32, 8, 2
CHANNELS = ('in_channels', 'channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels',
            'embed_dim')
PIXELS = ('scale', 'scales', 'crop_size', 'size', 'stride', 'input_size')
FOLDERS = 4  # of classes, of ImageNet
EPOCH = 256  # images that a repeated-augmentation epoch needs at least


def write_data(root: Path) -> Path:
    """The data of all tasks, in their layouts, a few small images each."""
    write_coco(root / 'coco')
    write_ade(root / 'ade/ADEChallengeData2016')
    for fraction in (1., .5, .25):  # of each size, so that an epoch is one batch
        write_folders(root / f'imagenet/{fraction}', round(EPOCH / fraction))
    write_folders(root / 'imagenet/val', 8)
    for split, count in (('train', EPOCH), ('test', 8)):
        write_arrow(root / f'cifar100/{split}', count)
    return root


def picture(i: int, side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (side, side, 3)).astype(np.uint8))


def write_folders(root: Path, count: int) -> None:
    for i in range(count):
        folder = root / f'n{i % FOLDERS:08}'
        folder.mkdir(parents=True, exist_ok=True)
        picture(i, 40).save(folder / f'{i}.png')


def write_arrow(root: Path, count: int) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    rows = dict(img=[picture(i, 32) for i in range(count)], fine_label=[i % 4 for i in range(count)])
    names = [str(i) for i in range(100)]
    Dataset.from_dict(rows, Features(img=ImageColumn(), fine_label=ClassLabel(names=names))).save_to_disk(root)


def shrink(cfg: Config, data: Path) -> Config:
    """A config small enough for one training and one test step on a CPU; whatever is not named here stays as it is.

    The ViT keeps its patch, epsilon, biases and division, and has 8 blocks of width 32 on 4 x 4 patches; taps and
    global blocks stay at the ends of the four modules. Heads are 32 wide. Every pixel size of pipelines, crops and
    sliding windows shrinks (rounded down) by one factor; SyncBN is BN; a detector keeps 10 boxes and trains on 32
    regions. Loaders read `data` (see `write_data`) in batches of 2 (classifiers: one epoch in a batch) without workers;
    the run is one iteration, an incubation one in each phase. Weights to start from are random ones with the file's own
    patch size, in the place of the config's.
    """
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    dense = cfg.model.get('backbone') is not None
    owner = cfg.model.backbone if dense else cfg.model
    full = Arch.parse(owner.arch)
    side = full.img_size if full.img_size == 32 else 4 * full.patch_size  # CIFAR's images are small already
    classes = FOLDERS if 'imagenet' in cfg.train_dataloader.dataset.get('root', '') else full.num_classes
    small = Arch.parse(full.to_dict() | dict(
        embed_dim=DIM, num_heads=2, depth=DEPTH, img_size=side, num_classes=classes))
    factor = 1 / 8 if dense else small.img_size / full.img_size
    cfg = Config(_scaled(cfg.to_dict(), factor, dense), filename=cfg.filename)
    owner = cfg.model.backbone if dense else cfg.model
    owner.arch = ConfigDict(small.to_dict())
    if mixup := (cfg.model.get('data_preprocessor') or {}).get('mixup'):
        mixup.num_classes = classes
    for key in ('out_indices', 'global_blocks'):
        if key in owner:
            owner[key] = tuple((i + 1) * DEPTH // full.depth - 1 for i in owner[key])
    if owner.get('init_cfg'):
        owner.init_cfg.checkpoint = str(_weights(data, owner.init_cfg.checkpoint, small, full))
    if cfg.default_scope == 'mmdet':
        cfg.model.test_cfg.rcnn.update(score_thr=0., max_per_img=10)  # an untrained model is sure of nothing
        cfg.model.train_cfg.rcnn.sampler.num = cfg.model.test_cfg.rpn.max_per_img = 32
    _shorten(cfg)
    _relocate(cfg, data, dense)
    return cfg


def _scaled(node, factor: float, dense: bool, key: str = ''):
    """Sizes in pixels times `factor`, channels to 32; smaller numbers under the same names are no pixels."""
    if isinstance(node, dict):
        return {k: _scaled(v, factor, dense, k) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_scaled(v, factor, dense, key) for v in node)
    if key in PIXELS and type(node) is int and node >= 32:
        return int(node * factor)
    if node == 'SyncBN':  # which CPU ranks do not have
        return 'BN'
    return DIM if dense and key in CHANNELS and type(node) is int else node


def _weights(data: Path, name: str, small: Arch, full: Arch) -> Path:
    """Random weights as the phase before would have left them: of another grid and, for ViT-H, of patch 14."""
    patch = 14 if not full.qkv_bias else full.patch_size
    arch = Arch.parse(small.to_dict() | dict(patch_size=patch, img_size=3 * patch))
    path = data / f'{Path(name).stem}-{patch}-{arch.num_classes}.safetensors'
    torch.manual_seed(0)
    write_tensors(path, VisionTransformer(arch).state_dict(), dict(kind='vit', arch=arch.to_dict()))
    return path


def _shorten(cfg: Config) -> None:
    loop = cfg.train_cfg
    if 'phases' in loop:
        for phase in loop.phases.values():
            phase.epochs = 1
    elif 'max_iters' in loop:
        loop.max_iters = loop.val_interval = 1
    else:
        loop.max_epochs = loop.val_interval = 1
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]  # a warm-up would outlast the run
    for phase in loop.get('phases', {}).values():
        phase.pop('param_scheduler', None)


def _relocate(cfg: Config, data: Path, dense: bool) -> None:
    for mode in ('train', 'val', 'test'):
        loader = cfg[f'{mode}_dataloader']
        size = min(loader.batch_size, BATCH) if dense else EPOCH
        loader.update(num_workers=0, persistent_workers=False, batch_size=size)
        for key in ('root', 'data_root'):
            if key in loader.dataset:
                loader.dataset[key] = loader.dataset[key].replace('data/', f'{data}/', 1)
    if not dense and 'imagenet' in cfg.train_dataloader.dataset.root:
        fraction = cfg.train_dataloader.dataset.get('fraction', 1.)
        cfg.train_dataloader.dataset.root = str(data / f'imagenet/{fraction}')
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        if 'ann_file' in evaluator:
            evaluator.ann_file = evaluator.ann_file.replace('data/', f'{data}/', 1)
