"""Image classification with a ViT: mixing and cross entropy in training, scores in evaluation."""
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmincubation.checkpoints import asks_file, load_pretrained, settle_arch
from mmincubation.errors import ConfigError
from mmincubation.registry import MODELS
from mmincubation.vit.transformer import VisionTransformer

from .init_cfg import valid_init_cfg


@MODELS.register_module()
class ClsDataPreprocessor(nn.Module):
    """Normalise collated uint8 images (B, 3, H, W) on the model's device; in training also augment the batch.

    `crop` pads images by so many black pixels and crops each at a random place to its size again; `flip` is the
    probability that an image is mirrored. Both are much cheaper here than as transforms of single small images. Then
    `erasing` (a `timm.data.random_erasing.RandomErasing`) erases rectangles of normalised images, as timm's loader
    does. At last `mixup` (a `timm.data.Mixup`) mixes pairs of images and turns `labels` (B,) into smoothed soft targets
    (B, classes). All draw from the process's generators, which the loops of `resumable` seed in every iteration.

    Raises:
        ConfigError: `crop` is no number of pixels, or `flip` no probability.
    """

    def __init__(self, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), erasing: dict | None = None,
                 mixup: dict | None = None, crop: int = 0, flip: float = 0.):
        super().__init__()
        if type(crop) is not int or crop < 0:
            raise ConfigError(f'data_preprocessor.crop={crop!r}: give the pixels of padding, 0 or more')
        if isinstance(flip, bool) or not 0 <= flip <= 1:
            raise ConfigError(f'data_preprocessor.flip={flip!r}: give a probability from 0 to 1')
        self.crop, self.flip = crop, flip
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.pixels = {key: [round(float(value), 4) for value in np.broadcast_to(values, 3)]
                       for key, values in (('mean', mean), ('std', std))}  # beside the buffers: no wait for a device
        self.erasing = erasing and MODELS.build(erasing)
        self.mixup = mixup and MODELS.build(mixup)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return `inputs` (B, 3, H, W) as normalised floats, and `labels`, from uint8 `inputs` and `labels` (B,).

        Raises:
            ValueError: `mixup` gets an odd number of images.
        """
        # uint8 is a quarter of the bytes of float32, so images are converted after the transfer to the device.
        inputs = data['inputs'].to(self.mean.device, non_blocking=True)
        labels = data['labels'].to(self.mean.device, non_blocking=True)
        if training:
            inputs = crop_and_flip(inputs, self.crop, self.flip)
        inputs = (inputs.float() - self.mean) / self.std
        if training:
            inputs, labels = self._augment(inputs, labels)
        return dict(inputs=inputs, labels=labels)

    def _augment(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.erasing:
            self.erasing.device = inputs.device  # timm takes the device at construction, before a model has one
            inputs = self.erasing(inputs)
        if self.mixup and len(inputs) % 2:
            raise ValueError(f'mixup pairs the images of a batch, {len(inputs)} are odd: give train_dataloader an even '
                             'batch_size and drop_last=True')
        return self.mixup(inputs, labels) if self.mixup else (inputs, labels)


def crop_and_flip(images: Tensor, padding: int, flip: float) -> Tensor:
    """Return (B, C, H, W) crops of images padded with 0 on all sides, mirrored with probability `flip`.

    Without padding and with `flip` 0 nothing is drawn.
    """
    (count, _, height, width), device = images.shape, images.device
    if padding:
        top, left = torch.randint(2 * padding + 1, (2, count), device=device)
        windows = F.pad(images, (padding, ) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: of all crops
        images = windows[torch.arange(count, device=device), :, top, left]
    if flip:
        mirrored = torch.rand(count, 1, 1, 1, device=device) < flip
        images = torch.where(mirrored, images.flip(3), images)
    return images


class BaseClassifier(BaseModel):
    """Loss and prediction from the logits of a subclass."""

    def __init__(self, data_preprocessor: dict | None = None):
        super().__init__(MODELS.build(data_preprocessor or dict(type='mmincubation.ClsDataPreprocessor')))

    @property
    def pixels(self) -> dict[str, list[float]]:
        """The `mean` and `std` of RGB in 0..255 that images are normalised by, as files of weights state them."""
        return getattr(self.data_preprocessor, 'pixels', {})  # of another kind: not known

    def logits(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'):
        """Return what `mode` asks for, from images (B, 3, H, W).

        'loss': a dict with `loss`, the cross entropy with labels (B,) or soft targets (B, classes). 'predict': for each
        image a dict with `scores` (classes,) and `label`. 'tensor': the logits (B, classes).
        """
        return self.outputs(self.logits(inputs), labels, mode)

    @staticmethod
    def outputs(logits: Tensor, labels: Tensor | None, mode: str):
        """Return what `forward` returns in this mode, from logits (B, classes)."""
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits.float(), labels))  # in float32 under autocast too
        if mode == 'predict':
            scores = logits.float().softmax(-1)
            return [dict(scores=s, label=t) for s, t in zip(scores, labels, strict=True)]
        return logits


@MODELS.register_module()
class ViTClassifier(BaseClassifier):
    """A ViT trained end to end: the E2E baseline, or fine-tuning from a file.

    `init_cfg=dict(type='Pretrained', checkpoint=PATH, fresh=('head', ))` names a ViT's file to start from. Position
    embedding and patch kernel are resized to `arch`, which may be `'auto'`: that of the file; for other classes
    `dict(name='auto', num_classes=N)`. The optional `fresh` names weights that keep their random values,
    `prefix` one of several ViTs in the file. `init_weights` loads the file strictly, stores the report in
    `load_report`, and raises CheckpointError if the file does not fit. `with_cp` saves memory by computing blocks
    twice, see `run_block`.
    """

    def __init__(self, arch: str | dict, drop_path_rate: float = 0., data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None, with_cp: bool = False):
        super().__init__(data_preprocessor)
        self.init_cfg = valid_init_cfg(init_cfg, 'ViTClassifier', ('fresh', ))
        self.load_report: dict | None = None
        if asks_file(arch):  # the tools have replaced it
            given = self.init_cfg or {}
            arch = settle_arch(dict(arch=arch), given.get('checkpoint'), 'ViTClassifier', given.get('prefix'))['arch']
        self.vit = VisionTransformer(arch, drop_path_rate, with_cp)

    def init_weights(self) -> None:
        """Load the file that `init_cfg` names; a second call changes nothing."""
        if self.init_cfg is not None and not self.is_init:
            self.load_report = load_pretrained(self.vit, self.init_cfg['checkpoint'], self.init_cfg.get('fresh', ()),
                                               self.init_cfg.get('prefix'))
        self.is_init = True

    @property
    def block_forwards(self) -> int:
        """The number of blocks that one image passes in a training step."""
        return self.vit.arch.depth

    def logits(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        return self.vit(images)

    def export(self) -> tuple[str, dict, dict]:
        """Return name, tensors (timm's names) and file header of the network that this model trains."""
        return 'e2e', self.vit.state_dict(), dict(kind='vit', arch=self.vit.arch.to_dict(), **self.pixels)
