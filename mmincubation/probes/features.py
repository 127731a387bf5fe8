"""Features of images, from a whole ViT that does not train."""
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmincubation.checkpoints import CheckpointError, changed, load_fitted, open_vit
from mmincubation.checkpoints.inspection import WITHOUT_TRACE, describe
from mmincubation.datasets.classification import ClsDataset, HFImages, ImageFolder
from mmincubation.downstream import ViTBackbone
from mmincubation.downstream.precision import bfloat16
from mmincubation.errors import ConfigError
from mmincubation.models import ClsDataPreprocessor
from mmincubation.vit import Arch

BATCH = 64
GEOMETRY = ('img_size', 'patch_size')  # fields of `arch` that may differ from the file's, which is then resized
SAY_EVERY = 10  # seconds


class FeatureViT(ViTBackbone):
    """A plain ViT with its final norm, from images (B, 3, H, W) to one vector each (B, C).

    `pool` says what the vector is, after the norm: 'token', the class token; 'avg', the mean of the patch tokens.
    """

    def __init__(self, arch: Arch, cls_token: bool, pool: str):
        super().__init__(arch, (arch.depth - 1, ), cls_token=cls_token)
        self.pool, self.norm = pool, nn.LayerNorm(arch.embed_dim, eps=arch.norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to float32 vectors (B, C)."""
        tokens, grid = self.stem(images)
        for block in self.blocks:
            tokens = block(tokens, grid, 0)
        tokens = self.norm(tokens)
        return (tokens[:, 0] if self.pool == 'token' else tokens[:, self.prefix:].mean(1)).float()


def feature_vit(path: str, stated: dict, pool: str | None = None, prefix: str | None = None) -> FeatureViT:
    """Build the ViT of a weight file and load it; the report is in `load_report`.

    `stated` are fields of `Arch`: those that the file does not show, and `img_size` or `patch_size` to resize it to.
    `pool` is by default what the file's head reads; without a class token it is 'avg'. `prefix` is that of `open_vit`.

    Raises:
        CheckpointError: the file cannot be read, has no final norm or class token, or does not say what it needs to.
    """
    weights = open_vit(path, prefix)
    fields = _fields(weights, path, stated)
    _require_norm(weights.tensors, path)
    cls_token = 'cls_token' in weights.tensors
    if pool == 'token' and not cls_token:
        raise CheckpointError(f'{path} has no class token: give --pool avg')
    pool = pool or (fields.get('global_pool', 'token') if cls_token else 'avg')
    try:
        arch = Arch.parse(fields | dict(global_pool=pool, num_classes=fields.get('num_classes') or 1))
    except ValueError as error:
        raise CheckpointError(f'{path}: {error}') from error
    vit = FeatureViT(arch, cls_token, pool).eval()
    vit.load_report = load_fitted(vit, path, arch, cls_token=cls_token, drop=('head', 'pre_logits'),
                                  fields=('num_heads', 'norm_eps'), prefix=prefix)
    return vit


def _fields(weights, path: str, stated: dict) -> dict:
    """Return all fields of `Arch`: what the file shows, what its run trained, what the user states."""
    shown, _ = describe(weights, path, {key: value for key, value in stated.items() if key not in GEOMETRY})
    fields = changed(shown | weights.trained, stated)
    if missing := [key for key in WITHOUT_TRACE if key not in fields]:
        raise CheckpointError(f'{path} does not say {" and ".join(missing)}: give --arch '
                              + ' '.join(f'{key}={dict(num_heads=12, norm_eps=1e-6)[key]}' for key in missing))
    return fields


def _require_norm(tensors: dict[str, Tensor], path: str) -> None:
    if 'norm.weight' not in tensors:
        why = 'its norm follows the pooling (fc_norm)' if 'fc_norm.weight' in tensors else 'as in a detector'
        raise CheckpointError(f'{path} has no final norm of the tokens, {why}; give weights as a classifier or a '
                              'pre-training has them')


def image_set(root: str, size: int, crop_pct: float, columns: tuple[str, str] = ('image', 'label'),
              fraction: float = 1., classes: tuple[str, ...] | None = None) -> ClsDataset:
    """Return classified images, resized and cropped to `size` pixels as the configs of ImageNet validate.

    `root` is a folder of class folders, or an Arrow folder with these `columns`. `fraction` and `classes` are those of
    the data sets.

    Raises:
        ConfigError: the folder cannot be used, or an image has no class.
    """
    settings = dict(root=root, fraction=fraction, classes=classes, pipeline=[dict(
        type='timm.data.create_transform', input_size=size, is_training=False, interpolation='bicubic',
        crop_pct=crop_pct, normalize=False)])
    arrow = any(Path(root, name).is_file() for name in ('state.json', 'dataset_dict.json'))
    found = HFImages(image=columns[0], label=columns[1], **settings) if arrow else ImageFolder(**settings)
    labels = found.labels[found.kept]
    if wrong := int(((labels < 0) | (labels >= len(found.classes))).sum()):
        raise ConfigError(f'{root}: {wrong:,} of {len(labels):,} images have no class; give a split with labels')
    return found


@torch.inference_mode()
def extract(vit: FeatureViT, images: ClsDataset, preprocess: ClsDataPreprocessor, workers: int, name: str
            ) -> tuple[Tensor, Tensor]:
    """Return features (N, C) in float32 and labels (N,) of all images, on the CPU, in their order.

    The device is that of `preprocess`; a GPU computes in bfloat16. Progress goes to stderr.
    """
    features, labels = torch.empty(len(images), vit.arch.embed_dim), torch.empty(len(images), dtype=torch.long)
    begun = said = time.monotonic()
    done = 0
    for batch in DataLoader(images, BATCH, num_workers=workers):
        data = preprocess(batch)
        with bfloat16(data['inputs'].is_cuda, data['inputs']):
            found = vit(data['inputs'])
        features[done:done + len(found)], labels[done:done + len(found)] = found.cpu(), batch['labels']
        done += len(found)
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            left = (said - begun) / done * (len(images) - done)
            print(f'{name}: {done:,} of {len(images):,} images, {left / 60:.1f} min left', file=sys.stderr)
    if not features.isfinite().all():
        raise ConfigError(f'{name}: features are not finite: give other weights, or another --mean and --std')
    return features, labels
