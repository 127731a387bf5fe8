"""Image classification around a ViT: mixing and cross entropy in training, scores in evaluation."""
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmincubation.checkpoints import load_pretrained
from mmincubation.registry import MODELS
from mmincubation.vit.transformer import VisionTransformer

from .init_cfg import valid_init_cfg


@MODELS.register_module()
class ClsDataPreprocessor(nn.Module):
    """Collated uint8 images (B, 3, H, W) to normalised floats on the model's device; in training also what works on
    whole batches of those.

    `erasing` (a `timm.data.random_erasing.RandomErasing`) blanks parts of normalised images, as timm's loader does.
    Then `mixup` (a `timm.data.Mixup`) mixes pairs and turns `labels` (B,) into soft targets (B, classes), smoothed.
    Both draw from the process's generators, which the loops of `exact` seed every iteration.
    """

    def __init__(self, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), erasing: dict | None = None,
                 mixup: dict | None = None):
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.erasing = erasing and MODELS.build(erasing)
        self.mixup = mixup and MODELS.build(mixup)

    def forward(self, data: dict, training: bool = False) -> dict:
        """`data` holds `inputs` and `labels` (B,).

        Raises:
            ValueError: an odd number of images is to be mixed.
        """
        inputs = data['inputs'].to(self.mean.device, non_blocking=True)
        labels = data['labels'].to(self.mean.device, non_blocking=True)
        inputs = (inputs.float() - self.mean) / self.std
        if training:
            inputs, labels = self._augment(inputs, labels)
        return dict(inputs=inputs, labels=labels)

    def _augment(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.erasing:
            self.erasing.device = inputs.device  # timm wants it at construction, when no model has one
            inputs = self.erasing(inputs)
        if self.mixup and len(inputs) % 2:
            raise ValueError(f'mixup pairs the images of a batch, {len(inputs)} are odd: give train_dataloader an even '
                             'batch_size and drop_last=True')
        return self.mixup(inputs, labels) if self.mixup else (inputs, labels)


class BaseClassifier(BaseModel):
    """Loss and prediction on top of `logits(images)`, which subclasses give."""

    def __init__(self, data_preprocessor: dict | None = None):
        super().__init__(MODELS.build(data_preprocessor or dict(type='mmincubation.ClsDataPreprocessor')))

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes)."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'):
        """`mode='loss'`: a dict with `loss`, the cross entropy with labels (B,) or soft targets (B, classes);
        `'predict'`: per image a dict with `scores` (classes,) and `label`; `'tensor'`: logits."""
        return self.outputs(self.logits(inputs), labels, mode)

    @staticmethod
    def outputs(logits: Tensor, labels: Tensor | None, mode: str):
        """Return what `forward` returns in a mode, from logits (B, classes)."""
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits.float(), labels))
        if mode == 'predict':
            scores = logits.float().softmax(-1)
            return [dict(scores=s, label=t) for s, t in zip(scores, labels, strict=True)]
        return logits


@MODELS.register_module()
class ViTClassifier(BaseClassifier):
    """A ViT trained end to end: the E2E control, or fine-tuning from a file.

    `init_cfg=dict(type='Pretrained', checkpoint=PATH, fresh=('head', ))` names a ViT's file to start from, strictly;
    position embedding and patch kernel are resized to `arch`, the optional `fresh` names what keeps its random start.
    `init_weights` loads it and keeps what arrived in `load_report`; a file that does not fit is a CheckpointError.
    `with_cp` keeps less for the backward pass and computes more, see `run_block`.
    """

    def __init__(self, arch: str | dict, drop_path_rate: float = 0., data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None, with_cp: bool = False):
        super().__init__(data_preprocessor)
        self.init_cfg = valid_init_cfg(init_cfg, 'ViTClassifier', ('fresh', ))
        self.load_report: dict | None = None
        self.vit = VisionTransformer(arch, drop_path_rate, with_cp)

    def init_weights(self) -> None:
        """Load the file that `init_cfg` names; a second call changes nothing."""
        if self.init_cfg is not None and not self.is_init:
            self.load_report = load_pretrained(self.vit, self.init_cfg['checkpoint'], self.init_cfg.get('fresh', ()))
        self.is_init = True

    @property
    def block_forwards(self) -> int:
        """Blocks that one image passes in a training step."""
        return self.vit.arch.depth

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes)."""
        return self.vit(images)

    def export(self) -> tuple[str, dict, dict]:
        """Name, tensors (timm's names) and header of what this model trains."""
        return 'e2e', self.vit.state_dict(), dict(kind='vit', arch=self.vit.arch.to_dict())
